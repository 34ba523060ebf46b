"""Which configuration the server runs with: the file, or the built-in one that scrapes the server itself."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from cli.flags import ServeFlags
from ingest.config import PrometheusConfig, load_config, load_config_text

_BUILT_IN = """\
global:
  scrape_interval: 15s
scrape_configs:
  - job_name: vedette
    scrape_interval: 5s
    static_configs:
      - targets: ["localhost:{port}"]
"""


@dataclass(slots=True)
class ConfigurationSource:
    """Where the configuration comes from, and how the last load went. Loop thread only."""

    path: Path | None
    built_in: str
    succeeded: bool = True
    loaded_at_s: float = 0.0
    _digest: bytes = b""

    @classmethod
    def from_flags(cls, flags: ServeFlags) -> ConfigurationSource:
        """The file of --config.file; the built-in one where the flag is not given and the file not there."""
        path = Path(flags["config.file"])
        built_in = _BUILT_IN.format(port=flags.addresses()[0].port)
        absent = "config.file" not in flags.given and not path.exists()
        return cls(None if absent else path, built_in)

    def load(self) -> PrometheusConfig:
        """Read and check everything. Raises ingest.config.ConfigError or OSError; nothing has changed then."""
        try:
            if self.path is None:
                config = load_config_text(self.built_in, name="built-in configuration")
            else:
                self._digest = self._file_digest()
                config = load_config(self.path)
        except Exception:
            self.succeeded = False
            raise
        self.succeeded = True
        self.loaded_at_s = time.time()
        return config

    def has_changed(self) -> bool:
        """Whether the file's content differs from what was last read."""
        return self.path is not None and self._file_digest() != self._digest

    def _file_digest(self) -> bytes:
        if self.path is None or not self.path.exists():
            return b""
        return hashlib.blake2b(self.path.read_bytes()).digest()
