"""A client of the Prometheus HTTP API for the command line; works against Vedette and Prometheus alike."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TIMEOUT_S = 150.0
"""Longer than the server's own query timeout, so that its error text is seen rather than ours."""


class ApiError(Exception):
    """The server refused or could not be reached; the text is fit to show."""


class ApiClient:
    """Blocking requests to one server. `server` is a URL, the scheme may be left out."""

    def __init__(self, server: str, headers: Mapping[str, str] | None = None) -> None:
        """Raises ApiError for a URL that is not http or https."""
        url = server if "://" in server else f"http://{server}"
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ApiError(f"server URL must be http or https: {server}")
        self._url = url.rstrip("/")
        self._headers = dict(headers or {})

    def get_text(self, path: str) -> tuple[int, str]:
        """Status and body of a GET. Raises ApiError where no answer came."""
        return self._send(urllib.request.Request(self._url + path, headers=self._headers))

    def call(self, path: str, parameters: Sequence[tuple[str, str]]) -> Any:
        """`data` of an API answer to a POSTed form. Raises ApiError with the server's type and text."""
        body = urllib.parse.urlencode(list(parameters)).encode()
        return self._data(urllib.request.Request(self._url + path, data=body, headers=self._headers))

    def get(self, path: str, parameters: Sequence[tuple[str, str]]) -> Any:
        """`data` of an API answer to a GET."""
        url = f"{self._url}{path}?{urllib.parse.urlencode(list(parameters))}"
        return self._data(urllib.request.Request(url, headers=self._headers))

    def stream(self, path: str, parameters: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Lines of an answer that does not end, as they come. Raises ApiError."""
        url = f"{self._url}{path}?{urllib.parse.urlencode(list(parameters))}"
        request = urllib.request.Request(url, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                for line in response:
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
        except urllib.error.HTTPError as error:
            raise self._error(error.code, error.read().decode(errors="replace")) from None
        except (urllib.error.URLError, OSError) as error:
            raise ApiError(f"cannot reach {self._url}: {getattr(error, 'reason', error)}") from None

    @staticmethod
    def _error(status: int, text: str) -> ApiError:
        try:
            answer = json.loads(text)
            return ApiError(f"{answer.get('errorType', status)}: {answer.get('error', text)}")
        except (ValueError, AttributeError):
            return ApiError(f"server answered {status}: {text.strip()[:200]}")

    def _data(self, request: urllib.request.Request) -> Any:
        status, text = self._send(request)
        try:
            answer = json.loads(text)
        except ValueError:
            raise ApiError(f"server answered {status}: {text.strip()[:200]}") from None
        if answer.get("status") != "success":
            raise self._error(status, text)
        return answer.get("data")

    def _send(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ApiError(f"cannot reach {self._url}: {reason}") from None
