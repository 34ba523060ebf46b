"""Which configuration the server runs with: the file, or the built-in one that scrapes the server itself."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from cli.flags import ServeFlags
from ingest.config.document import LoadedConfig, load_config, parse_config, read_extension
from security.config import SecurityConfig

_BUILT_IN = """\
global:
  scrape_interval: 15s
scrape_configs:
  - job_name: vedette
    scrape_interval: 5s
    static_configs:
      - targets: ["localhost:{port}"]
"""
_BUILT_IN_TLS = """\
    scheme: https
    tls_config: {insecure_skip_verify: true}
"""


def read_security_config(loaded: LoadedConfig) -> SecurityConfig:
    """The section of a loaded file, or the defaults. Raises ConfigError with file and line."""
    return read_extension(loaded, "security", SecurityConfig)


def check_sections(loaded: LoadedConfig) -> None:
    """Check the sections of Vedette's own parts. Raises ConfigError."""
    if loaded.config.agent is not None:
        # Its modules are imported after the server is ready, where nothing is said of the agent.
        from agent.config import read_agent_config

        read_agent_config(loaded)
    read_security_config(loaded)


@dataclass(slots=True)
class ConfigurationSource:
    """Where the configuration comes from, and how the last load went. Loop thread only."""

    path: Path | None
    built_in: str
    succeeded: bool = True
    loaded_at_s: float = 0.0
    _files: tuple[str, ...] = ()
    _digest: bytes = b""

    @classmethod
    def from_flags(cls, flags: ServeFlags) -> ConfigurationSource:
        """The file of --config.file; the built-in one where the flag is not given and the file not there."""
        path = Path(flags["config.file"])
        built_in = _BUILT_IN.format(port=flags.addresses()[0].port)
        if flags["web.config.file"]:
            built_in += _BUILT_IN_TLS
        absent = "config.file" not in flags.given and not path.exists()
        return cls(None if absent else path, built_in)

    def load(self) -> LoadedConfig:
        """Read and check everything. Raises ConfigError or OSError; nothing has changed then."""
        try:
            if self.path is None:
                config = parse_config(self.built_in, "built-in configuration")
            else:
                config = load_config(self.path)
                self._files = config.files
                self._digest = self._content_digest()
            check_sections(config)
        except Exception:
            self.succeeded = False
            raise
        self.succeeded = True
        self.loaded_at_s = time.time()
        return config

    def has_changed(self) -> bool:
        """Whether the content of the files differs from what was last read."""
        return self._content_digest() != self._digest

    def _content_digest(self) -> bytes:
        digest = hashlib.blake2b()
        for name in self._files:
            file = Path(name)
            digest.update(file.read_bytes() if file.is_file() else b"")
        return digest.digest()
