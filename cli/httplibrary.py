"""aiohttp, imported without the certificates of the system."""

from __future__ import annotations

import importlib
import ssl


def import_http_library() -> None:
    """Import aiohttp, before anything else does.

    It makes two TLS contexts for clients when it is imported, and reading some hundred certificates into each
    takes a tenth of an idle server's start. Nobody uses these contexts: every client of ours brings its own
    (`ingest.httpclient.tls_context`). Left without certificates they would trust no server.
    """
    ssl.SSLContext.set_default_verify_paths = _no_certificates  # type: ignore[assignment, method-assign]
    try:
        importlib.import_module("aiohttp")
    finally:
        # It is inherited, so that what is removed here is only what was set above.
        del ssl.SSLContext.set_default_verify_paths


def _no_certificates(context: ssl.SSLContext) -> None:
    pass
