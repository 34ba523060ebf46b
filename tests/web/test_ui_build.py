"""Fetching the plotting library, and a page that works without it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import Site, SiteFactory
from web.ui import build, pages


def package(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "uplot.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_without_npm_one_line_says_so_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "is_current", lambda: False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert build.main() == 0
    said = capsys.readouterr().err
    assert said == ("web.ui.build: npm is not installed; the query page will show tables but no graphs\n")


def test_a_package_with_another_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(build.FetchError, match="expected sha512-"):
        build._check(package(tmp_path, {"package/LICENSE": b"x"}))


def test_the_files_are_unpacked_once(tmp_path: Path) -> None:
    vendor = tmp_path / "vendor"
    build._unpack(package(tmp_path, dict.fromkeys(build.FILES, b"content")), vendor)
    assert sorted(path.name for path in vendor.iterdir()) == sorted([*build.FILES.values(), "version.txt"])
    assert build.is_current(vendor)
    (vendor / "version.txt").write_text("0.0.1")
    assert not build.is_current(vendor)


async def test_the_page_is_served_without_the_library(
    make_site: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {name: asset for name, asset in pages.load_assets().items() if not name.startswith("vendor/")}
    monkeypatch.setattr(pages, "load_assets", lambda: found)
    site: Site = await make_site(page_title="My <metrics>", route_prefix="/p")
    status, text = await site.get("/p/query")
    assert status == 200
    assert "<title>My &lt;metrics&gt;</title>" in text
    assert (await site.get("/p/assets/vendor/uPlot.iife.min.js"))[0] == 404
    assert (await site.get("/p/assets/query.js"))[0] == 200
    assert (await site.get("/p/assets/../pages.py"))[0] == 404


async def test_assets_are_revalidated_by_hash(site: Site) -> None:
    async with site.client.get("/assets/query.css") as response:
        tag = response.headers["ETag"]
        assert response.content_type == "text/css"
    async with site.client.get("/assets/query.css", headers={"If-None-Match": tag}) as response:
        assert response.status == 304
    async with site.client.get("/query") as response:
        policy: Any = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
