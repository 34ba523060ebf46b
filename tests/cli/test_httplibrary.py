"""aiohttp is imported without certificates, and only its own contexts are without them."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import ssl
from cli.httplibrary import import_http_library
import_http_library()
from aiohttp import connector
from ingest.config.httpclient import TLSConfig
from ingest.httpclient import tls_context
assert connector._SSL_CONTEXT_VERIFIED.verify_mode is ssl.CERT_REQUIRED
print(connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"])
ours, usual = tls_context(TLSConfig()), ssl.create_default_context()
assert ours.verify_mode is ssl.CERT_REQUIRED
print(ours.cert_store_stats() == usual.cert_store_stats(), "set_default_verify_paths" in vars(ssl.SSLContext))
"""


def test_contexts_of_our_clients_have_the_certificates_of_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("0\nTrue False\n", "")
