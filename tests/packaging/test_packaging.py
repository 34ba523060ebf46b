"""Units, image recipe and chart: checked by their own tools, and against the command line they call."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.config import AgentConfig, read_agent_config
from cli.agent import agent
from cli.serve import serve
from ingest.config.document import parse_config

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
PROGRAM = "/opt/vedette/.venv/bin/vedette"
UNITS = ("vedette.service", "vedette-agent.service")
COMMANDS = {"serve": serve, "agent": agent}


def flags_of(command: str) -> set[str]:
    """Every spelling of every flag of a command."""
    return {name for option in COMMANDS[command].params for name in (*option.opts, *option.secondary_opts)}


def unknown_flags(arguments: list[str]) -> set[str]:
    """Flags of a command line that the command does not have."""
    known = flags_of(arguments[0])
    return {word.partition("=")[0] for word in arguments[1:] if word.startswith("--")} - known


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_a_unit(tmp_path: Path, unit: str) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    # What the unit starts must exist on the machine that checks it.
    vedette = str(Path(sys.executable).parent / "vedette")
    text = (PACKAGING / "systemd" / unit).read_text().replace(PROGRAM, vedette)
    (tmp_path / unit).write_text(text)
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_a_command_with_flags_that_exist(unit: str) -> None:
    text = (PACKAGING / "systemd" / unit).read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    words = shlex.split(line)
    assert words[0] == PROGRAM
    assert unknown_flags(words[1:]) == set()
    for flags in re.findall(r"^# VEDETTE_AGENT_ARGS=(.*)$", text, re.MULTILINE):
        assert unknown_flags(["agent", *shlex.split(flags)]) == set()


def test_the_agents_unit_has_what_the_probe_needs_and_the_servers_nothing() -> None:
    server, host = ((PACKAGING / "systemd" / unit).read_text() for unit in UNITS)
    assert "\nCapabilityBoundingSet=\n" in server
    assert "\nUser=vedette\n" in server
    (capabilities,) = re.findall(r"^CapabilityBoundingSet=(.+)$", host, re.MULTILINE)
    assert {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"} <= set(capabilities.split())
    hidings = ("ProtectProc", "ProtectControlGroups", "PrivateDevices", "ProtectKernelTunables")
    # The running kernel's headers are in /lib/modules, which the last one hides.
    for hiding in (*hidings, "ProtectKernelModules"):
        assert not re.search(rf"^{hiding}=", host, re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Instructions of the image recipe, continued lines joined."""
    text = re.sub(r"\\\n", " ", (PACKAGING / "oci" / "Containerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_copies_every_package_and_starts_the_command() -> None:
    found = instructions()
    words = {word for word, _ in found}
    assert words <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"}
    sources = {
        name for word, rest in found if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]
    }
    assert not [name for name in sources if not (ROOT / name).exists()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= sources
    assert json.loads(dict(found)["ENTRYPOINT"]) == ["vedette"]
    assert unknown_flags(json.loads(dict(found)["CMD"])) == set()
    assert [rest for word, rest in found if word == "USER"] == ["10001"]


def helm() -> str:
    """The program, or skip."""
    found = shutil.which("helm") or shutil.which("helm", path=str(Path.home() / "go" / "bin"))
    if found is None:
        pytest.skip("helm is not installed (go install helm.sh/helm/v3/cmd/helm@v3.16.4 gives it)")
    return found


def rendered(kubernetes: str = "1.30.0", **values: str) -> dict[tuple[str, str], Any]:
    """Objects of the chart by kind and name."""
    sets = [f"--set={key.replace('__', '.')}={value}" for key, value in values.items()]
    done = subprocess.run(
        [
            helm(),
            "template",
            "mon",
            str(PACKAGING / "helm" / "vedette"),
            "--namespace=obs",
            f"--kube-version={kubernetes}",
            *sets,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pod(objects: Mapping[tuple[str, str], Any], kind: str, name: str) -> Any:
    return objects[kind, name]["spec"]["template"]["spec"]


def test_helm_finds_no_fault_in_the_chart() -> None:
    done = subprocess.run(
        [helm(), "lint", "--strict", "--kube-version=1.30.0", str(PACKAGING / "helm" / "vedette")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_chart_makes_a_server_and_an_agent_on_every_node() -> None:
    objects = rendered()
    assert set(objects) == {
        ("Secret", "mon-vedette-agent-token"),
        ("ConfigMap", "mon-vedette-server"),
        ("ConfigMap", "mon-vedette-agent"),
        ("Service", "mon-vedette"),
        ("StatefulSet", "mon-vedette"),
        ("DaemonSet", "mon-vedette-agent"),
        ("ServiceAccount", "mon-vedette-agent"),
    }
    token = base64.b64decode(objects["Secret", "mon-vedette-agent-token"]["data"]["token"])
    assert len(token) == 48


@pytest.mark.parametrize(
    ("kind", "name"), [("StatefulSet", "mon-vedette"), ("DaemonSet", "mon-vedette-agent")]
)
def test_pods_select_themselves_mount_what_there_is_and_use_flags_that_exist(kind: str, name: str) -> None:
    objects = rendered()
    spec = objects[kind, name]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    (container,) = pod(objects, kind, name)["containers"]
    assert unknown_flags(container["args"]) == set()
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]
    volumes = {volume["name"] for volume in pod(objects, kind, name)["volumes"]} | set(claims)
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    for volume in pod(objects, kind, name)["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in objects
        if "secret" in volume:
            assert ("Secret", volume["secret"]["secretName"]) in objects


def test_the_agents_pod_sees_its_node_and_has_no_more_than_it_needs() -> None:
    spec = pod(rendered(), "DaemonSet", "mon-vedette-agent")
    assert (spec["hostPID"], spec["hostNetwork"]) == (True, True)
    assert spec["automountServiceAccountToken"] is False
    assert spec["tolerations"] == [{"operator": "Exists"}], "nodes of the control plane have agents too"
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert "privileged" not in security
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    unit = (PACKAGING / "systemd" / "vedette-agent.service").read_text()
    (capabilities,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    assert {f"CAP_{name}" for name in security["capabilities"]["add"]} == set(capabilities.split())
    assert "--server=http://mon-vedette:9090" in container["args"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for path in ("/sys", "/run"):
        assert mounts[path]["readOnly"] is True
        assert volumes[mounts[path]["name"]]["hostPath"]["path"] == path
    assert mounts["/run"]["mountPropagation"] == "HostToContainer", "a runtime that starts later is seen"
    # What is written has a place: the root of the container is read only.
    assert "hostPath" in volumes[mounts["/var/lib/vedette-agent"]["name"]]
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
    token = next(word.partition("=")[2] for word in container["args"] if word.startswith("--token-file="))
    assert mounts[str(Path(token).parent)]["readOnly"] is True


def test_the_agent_is_probed_where_it_listens_and_may_read_other_processes() -> None:
    container = pod(rendered(agent__healthPort="9555"), "DaemonSet", "mon-vedette-agent")["containers"][0]
    assert "--web.listen-address=127.0.0.1:9555" in container["args"]
    for probe in ("startupProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["host"], asked["path"], asked["port"]) == ("127.0.0.1", "/-/ready", 9555)
    assert container["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}
    old = rendered(kubernetes="1.27.3")["DaemonSet", "mon-vedette-agent"]["spec"]["template"]
    annotations = old["metadata"]["annotations"]
    assert annotations["container.apparmor.security.beta.kubernetes.io/agent"] == "unconfined"
    assert "appArmorProfile" not in old["spec"]["containers"][0]["securityContext"]


def test_the_configuration_in_the_chart_is_valid() -> None:
    objects = rendered(agent__config__agent__interval="30s")
    text = objects["ConfigMap", "mon-vedette-agent"]["data"]["agent.yml"]
    config = read_agent_config(parse_config(text))
    assert isinstance(config, AgentConfig)
    assert config.interval.seconds == 30
    parse_config(objects["ConfigMap", "mon-vedette-server"]["data"]["vedette.yml"])


def test_an_agent_may_send_elsewhere_with_a_secret_of_ones_own() -> None:
    objects = rendered(
        server__enabled="false", agent__serverUrl="https://v.example", agentToken__existingSecret="tok"
    )
    assert not [kind for kind, _ in objects if kind in ("StatefulSet", "Secret", "Service")]
    spec = pod(objects, "DaemonSet", "mon-vedette-agent")
    assert "--server=https://v.example" in spec["containers"][0]["args"]
    secrets = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    assert secrets == ["tok"]
