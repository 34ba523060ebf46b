"""`vedette serve`: read the flags and the configuration, then run the server until it is told to stop."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

import click

from cli.flags import FEATURES, ServeFlags, serve_options

log = logging.getLogger("vedette.main")

EXIT_CONFIGURATION = 2
EXIT_START = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@serve_options
@click.pass_context
def serve(context: click.Context, /, **values: Any) -> None:
    """Run the server: store, queries, scraping, remote write.

    Flags have Prometheus's names and defaults where Prometheus has them.
    """
    from cli.logs import set_up_logs

    # The imports below make many lasting objects; the server turns collection on when they are there.
    gc.disable()
    flags = ServeFlags.from_click(context, values)
    set_up_logs(flags["log.level"], flags["log.format"])
    for name in sorted(flags.features() - FEATURES):
        log.warning("unknown option for --enable-feature", extra={"option": name})
    for name in flags.without_effect():
        log.warning("Flag has no effect", extra={"flag": name})

    from cli.earlystore import StoreOpening, has_log

    opening = StoreOpening(flags)
    if has_log(flags):
        opening.begin()
        opening.wait_until_storing()

    from cli.configuration import ConfigurationSource
    from ingest.config.errors import ConfigError

    source = ConfigurationSource.from_flags(flags)
    try:
        config = source.load()
    except (ConfigError, OSError) as error:
        log.error("Error loading config", extra={"file": str(source.path), "err": str(error)})
        sys.exit(EXIT_CONFIGURATION)

    from cli.httplibrary import import_http_library

    import_http_library()
    from cli.server import Server, StartError

    try:
        Server(flags, source, config, opening).run()
    except StartError as error:
        log.error("cannot start", extra={"err": str(error)})
        sys.exit(EXIT_START)
