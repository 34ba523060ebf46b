"""`vedette agent`: watch this host and send what is found to a server."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import Any

import click

from cli import flagtypes
from cli.logs import FORMATS, LEVELS

log = logging.getLogger("vedette.agent")

EXIT_CONFIGURATION = 2
EXIT_START = 1

_TLS_KEYS = ("ca_file", "cert_file", "key_file", "server_name")
_FILE = click.Path(exists=True, dir_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--server", required=True, metavar="URL", help="Server to send to, such as https://vedette:9090."
)
@click.option("--config.file", "config_file", type=_FILE, help="File with an `agent:` section.")
@click.option(
    "--security.rules",
    "rules",
    multiple=True,
    type=click.Path(exists=True),
    help="Falco rules file or folder; repeat for more. Without one the starter rules run.",
)
@click.option(
    "--storage.agent.path",
    "data",
    default="data-agent/",
    show_default=True,
    help="Folder of what waits for the server.",
)
@click.option("--token-file", type=_FILE, help="File with the token that the server wants from agents.")
@click.option("--tls.ca-file", "ca_file", type=_FILE, help="Authority that signed the server's certificate.")
@click.option("--tls.cert-file", "cert_file", type=_FILE, help="Certificate of this agent.")
@click.option("--tls.key-file", "key_file", type=_FILE, help="Key of that certificate.")
@click.option("--tls.server-name", "server_name", default="", help="Name to expect in the certificate.")
@click.option(
    "--queue.samples-size",
    "samples_size",
    type=flagtypes.SIZE,
    default="512MB",
    show_default=True,
    help="Most bytes of samples that wait on disk.",
)
@click.option(
    "--queue.events-size",
    "events_size",
    type=flagtypes.SIZE,
    default="512MB",
    show_default=True,
    help="Most bytes of security events that wait on disk.",
)
@click.option(
    "--queue.samples-age",
    "samples_age",
    type=flagtypes.DURATION,
    default="0",
    help="Samples older than this are given up; 0 means never.",
)
@click.option(
    "--flush-deadline",
    type=flagtypes.DURATION,
    default="5s",
    show_default=True,
    help="How long to go on sending when told to stop.",
)
@click.option(
    "--web.listen-address",
    "listen",
    type=flagtypes.ADDRESS,
    default="",
    help="Address for /metrics and /-/ready; nothing listens by default.",
)
@click.option("--log.level", "log_level", type=click.Choice(list(LEVELS)), default="info", show_default=True)
@click.option(
    "--log.format", "log_format", type=click.Choice(list(FORMATS)), default="logfmt", show_default=True
)
def agent(**values: Any) -> None:
    """Watch this host and send metrics and security events to a Vedette server.

    Without root it sends the metrics that /proc and /sys give to everybody.
    """
    from cli.logs import set_up_logs

    gc.disable()
    set_up_logs(values["log_level"], values["log_format"])

    from cli.agentprocess import AgentFlags, AgentProcess, StartError
    from ingest.config.errors import ConfigError

    flags = AgentFlags(
        server=values["server"].rstrip("/"),
        config_file=values["config_file"] or "",
        rules=tuple(values["rules"]),
        data=Path(values["data"]),
        token_file=values["token_file"] or "",
        tls={key: values[key] for key in _TLS_KEYS if values[key]},
        samples_bytes=flagtypes.parse_size_bytes(values["samples_size"]),
        events_bytes=flagtypes.parse_size_bytes(values["events_size"]),
        samples_age_seconds=flagtypes.parse_duration_ms(values["samples_age"]) / 1000,
        flush_seconds=flagtypes.parse_duration_ms(values["flush_deadline"]) / 1000,
        listen=values["listen"],
    )
    try:
        AgentProcess(flags).run()
    except ConfigError as error:
        log.error("Error loading config", extra={"file": flags.config_file, "err": str(error)})
        sys.exit(EXIT_CONFIGURATION)
    except StartError as error:
        log.error("cannot start", extra={"err": str(error)})
        sys.exit(EXIT_START)
