"""HTTP client keys that scraping, discovery, remote storage and alerting share (surface 7.2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ingest.config.section import FilePath, Secret, Section, Url, fault

TLSVersion = Literal["", "TLS10", "TLS11", "TLS12", "TLS13"]
_NO_SECRET = Secret("")

RESERVED_HEADERS = frozenset(
    {
        *("host", "content-encoding", "content-length", "content-type", "user-agent", "connection"),
        *("keep-alive", "proxy-authenticate", "proxy-authorization", "www-authenticate", "accept-encoding"),
        *("x-prometheus-remote-write-version", "x-prometheus-remote-read-version"),
        *("x-amz-date", "x-amz-security-token", "x-amz-content-sha256"),
    }
)
_SCRAPE_RESERVED_HEADERS = frozenset(
    {
        *("authorization", "host", "content-encoding", "content-length", "content-type", "user-agent"),
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "www-authenticate"),
        *("accept-encoding", "x-prometheus-remote-write-version", "x-prometheus-remote-read-version"),
        *(
            "x-prometheus-scrape-timeout-seconds",
            "x-amz-date",
            "x-amz-security-token",
            "x-amz-content-sha256",
        ),
    }
)


class TLSConfig(Section):
    """Certificates of a client, inline or in files."""

    go_type = "config.plain"
    ca: str = ""
    cert: str = ""
    key: Secret = _NO_SECRET
    ca_file: FilePath = ""
    cert_file: FilePath = ""
    key_file: FilePath = ""
    ca_ref: str = ""
    cert_ref: str = ""
    key_ref: str = ""
    server_name: str = ""
    insecure_skip_verify: bool = False
    min_version: TLSVersion = ""
    max_version: TLSVersion = ""

    @model_validator(mode="after")
    def _one_source_each(self) -> Self:
        if self.ca and self.ca_file:
            raise fault("at most one of ca and ca_file must be configured", "ca_file")
        if self.cert and self.cert_file:
            raise fault("at most one of cert and cert_file must be configured", "cert_file")
        has_key = bool(self.key.get_secret_value())
        if has_key and self.key_file:
            raise fault("at most one of key and key_file must be configured", "key_file")
        if bool(self.cert or self.cert_file) != bool(has_key or self.key_file):
            raise fault(
                "exactly one of cert or cert_file and one of key or key_file must be configured together"
            )
        return self

    @property
    def is_empty(self) -> bool:
        """Whether nothing was configured."""
        return self == TLSConfig.model_construct()


class BasicAuth(Section):
    """User name and password, inline or in files that are read again for each request."""

    username: str = ""
    username_file: FilePath = ""
    username_ref: str = ""
    password: Secret = _NO_SECRET
    password_file: FilePath = ""
    password_ref: str = ""

    @model_validator(mode="after")
    def _one_source_each(self) -> Self:
        if self.username and self.username_file:
            raise fault(
                "at most one of basic_auth username & username_file must be configured", "username_file"
            )
        if self.password.get_secret_value() and self.password_file:
            raise fault(
                "at most one of basic_auth password & password_file must be configured", "password_file"
            )
        return self


class Authorization(Section):
    """The Authorization header."""

    type: str = "Bearer"
    credentials: Secret = _NO_SECRET
    credentials_file: FilePath = ""
    credentials_ref: str = ""

    @model_validator(mode="after")
    def _valid(self) -> Self:
        if self.credentials.get_secret_value() and self.credentials_file:
            raise fault(
                "at most one of authorization credentials & credentials_file must be configured",
                "credentials_file",
            )
        if self.type.strip().lower() == "basic":
            raise fault('authorization type cannot be set to "basic", use "basic_auth" instead', "type")
        return self


class ProxyConfig(Section):
    """Proxy keys, inline in other sections."""

    proxy_url: Url = ""
    no_proxy: str = ""
    proxy_from_environment: bool = False
    proxy_connect_header: dict[str, list[Secret]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _proxy_keys_agree(self) -> Self:
        if self.proxy_from_environment and self.proxy_url:
            raise fault(
                "if proxy_from_environment is configured, proxy_url must not be configured", "proxy_url"
            )
        if self.proxy_from_environment and self.no_proxy:
            raise fault(
                "if proxy_from_environment is configured, no_proxy must not be configured", "no_proxy"
            )
        if self.no_proxy and not self.proxy_url:
            raise fault("if no_proxy is configured, proxy_url must also be configured", "no_proxy")
        if self.proxy_connect_header and not (self.proxy_url or self.proxy_from_environment):
            raise fault(
                "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be "
                "configured",
                "proxy_connect_header",
            )
        return self


class OAuth2(ProxyConfig):
    """OAuth 2.0 client credentials, or a signed JWT as the grant."""

    client_id: str = ""
    client_secret: Secret = _NO_SECRET
    client_secret_file: FilePath = ""
    client_secret_ref: str = ""
    client_certificate_key_id: str = ""
    client_certificate_key: Secret = _NO_SECRET
    client_certificate_key_file: FilePath = ""
    client_certificate_key_ref: str = ""
    grant_type: Literal["", "client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer"] = ""
    signature_algorithm: Literal["", "RS256", "RS384", "RS512"] = ""
    iss: str = ""
    audience: str = ""
    claims: dict[str, Any] = Field(default_factory=dict)
    scopes: list[str] = Field(default_factory=list)
    token_url: str = ""
    endpoint_params: dict[str, str] = Field(default_factory=dict)
    tls_config: TLSConfig = TLSConfig.model_construct()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.client_id:
            raise fault("oauth2 client_id must be configured", "client_id")
        if not self.token_url:
            raise fault("oauth2 token_url must be configured", "token_url")
        if self.client_secret.get_secret_value() and self.client_secret_file:
            raise fault(
                "at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be "
                "configured",
                "client_secret_file",
            )
        return self


class HTTPHeader(Section):
    """Values of one extra request header."""

    values: list[str] = Field(default_factory=list)
    secrets: list[Secret] = Field(default_factory=list)
    files: list[FilePath] = Field(default_factory=list)


class SigV4Config(Section):
    """Request signing for Amazon's services."""

    region: str = ""
    access_key: str = ""
    secret_key: Secret = _NO_SECRET
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""
    use_fips_sts_endpoint: bool = False
    service_name: str = ""

    @model_validator(mode="after")
    def _key_pair(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key.get_secret_value()):
            raise fault("must provide a AWS SigV4 Access key and Secret Key if credentials are specified")
        return self


class HTTPClientConfig(ProxyConfig):
    """How to talk HTTP to somebody; inline in the section that does."""

    always_printed = frozenset({"follow_redirects", "enable_http2"})

    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    oauth2: OAuth2 | None = None
    bearer_token: Secret = _NO_SECRET
    bearer_token_file: FilePath = ""
    tls_config: TLSConfig = TLSConfig.model_construct()
    follow_redirects: bool = True
    enable_http2: bool = True
    http_headers: dict[str, HTTPHeader] = Field(default_factory=dict)

    @field_validator("http_headers")
    @classmethod
    def _no_reserved_header(cls, headers: dict[str, HTTPHeader]) -> dict[str, HTTPHeader]:
        for name in headers:
            if name.lower() in _SCRAPE_RESERVED_HEADERS:
                raise fault(f"setting header {name!r} is not allowed", name)
        return headers

    @model_validator(mode="after")
    def _at_most_one_credential(self) -> Self:
        bearer = bool(self.bearer_token.get_secret_value())
        if bearer and self.bearer_token_file:
            raise fault(
                "at most one of bearer_token & bearer_token_file must be configured", "bearer_token_file"
            )
        if (self.basic_auth or self.oauth2) and (bearer or self.bearer_token_file):
            raise fault(
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured",
                "bearer_token" if bearer else "bearer_token_file",
            )
        if self.authorization and (bearer or self.bearer_token_file):
            raise fault(
                "authorization is not compatible with bearer_token & bearer_token_file", "authorization"
            )
        if (self.authorization and (self.basic_auth or self.oauth2)) or (self.basic_auth and self.oauth2):
            raise fault("at most one of basic_auth, oauth2 & authorization must be configured")
        return self

    @property
    def effective_authorization(self) -> Authorization | None:
        """The Authorization header to send, with the older bearer_token keys folded in."""
        if self.bearer_token.get_secret_value() or self.bearer_token_file:
            return Authorization(credentials=self.bearer_token, credentials_file=self.bearer_token_file)
        return self.authorization

    @property
    def is_custom_client(self) -> bool:
        """Whether any HTTP client key differs from its default."""
        default = HTTPClientConfig()
        return any(getattr(self, name) != getattr(default, name) for name in HTTPClientConfig.model_fields)


Headers = Annotated[dict[str, str], Field(default_factory=dict)]


def check_headers(headers: dict[str, str], authorization_message: str) -> dict[str, str]:
    """Refuse headers that only the client itself may set; `authorization` with the given text."""
    for name in headers:
        if name.lower() == "authorization":
            raise fault(authorization_message, name)
        if name.lower() in RESERVED_HEADERS:
            raise fault(f"{name} is a reserved header. It must not be changed", name)
    return headers
