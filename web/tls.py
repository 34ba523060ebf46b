"""The web configuration file (`--web.config.file`): TLS of the server, with Prometheus's keys."""

from __future__ import annotations

import ssl
from typing import Literal, Self

from pydantic import model_validator

from ingest.config.document import load_section
from ingest.config.section import FilePath, Section, fault

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class TLSServerConfig(Section):
    """`tls_server_config`. Certificates that are wanted and not verified do not exist in Python's ssl."""

    cert_file: FilePath = ""
    key_file: FilePath = ""
    client_ca_file: FilePath = ""
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = (
        "NoClientCert"
    )
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in ("cert_file", "key_file"):
            if not getattr(self, name):
                raise fault(f"missing {name}", name)
        if (self.client_auth_type == "NoClientCert") == bool(self.client_ca_file):
            raise fault("client_ca_file and a client_auth_type that verifies belong together")
        return self


class WebConfig(Section):
    """The whole file. `basic_auth_users` and `http_server_config` are not supported and refused."""

    tls_server_config: TLSServerConfig | None = None


def server_context(path: str) -> ssl.SSLContext | None:
    """The context of the file's TLS section, None without a file or a section.

    Raises ConfigError, and OSError (ssl.SSLError is one) for certificates that cannot be used.
    """
    tls = load_section(path, WebConfig).tls_server_config if path else None
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.client_ca_file or None)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    context.verify_mode = _CLIENTS[tls.client_auth_type]
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    return context
