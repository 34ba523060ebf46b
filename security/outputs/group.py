"""All outputs of the configuration as one sink of the pipeline."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from security.config import (
    FileOutput,
    HttpOutput,
    SecurityConfig,
    StdoutOutput,
    SyslogOutput,
    output_name,
)
from security.output import OutputOptions
from security.outputs.files import FileChannel, StdoutChannel
from security.outputs.http import HttpChannel, HttpTarget
from security.outputs.output import Channel, Output, Print
from security.outputs.spool import Spool
from security.outputs.syslog import SyslogChannel, SyslogTarget
from security.record import EventRecord

log = logging.getLogger("security.outputs")

_SYSLOG_PORTS = {"udp": 514, "tcp": 514, "tls": 6514}

AnyOutput = StdoutOutput | FileOutput | SyslogOutput | HttpOutput


class OutputGroup:
    """The sink of all outputs. `apply` by one thread at a time, `write` by the pipeline's."""

    name = "outputs"

    def __init__(self) -> None:
        self.outputs: tuple[Output, ...] = ()
        self._config: SecurityConfig | None = None

    def apply(self, config: SecurityConfig) -> None:
        """Run the outputs of a configuration; those of an equal one are opened again (log rotation).

        Raises OSError when a certificate cannot be read; the outputs are as they were then.
        """
        if self._config == config:
            for output in self.outputs:
                output.reopen()
            return
        channels = [_channel(output) for output in config.outputs]
        old, self.outputs = self.outputs, ()
        _close(old)
        self.outputs = tuple(
            _start(config, output, output_name(output, at), channel)
            for at, (output, channel) in enumerate(zip(config.outputs, channels, strict=True))
        )
        self._config = config

    def write(self, records: Sequence[EventRecord]) -> None:
        """Hand records to every output."""
        for output in self.outputs:
            output.write(records)

    def tick(self) -> None:
        """Nothing: outputs have threads of their own."""

    def close(self) -> None:
        """Stop all outputs."""
        _close(self.outputs)


def _close(outputs: Sequence[Output]) -> None:
    for output in outputs:
        output.begin_close()
    for output in outputs:
        output.close()


def _start(config: SecurityConfig, output: AnyOutput, name: str, channel: Channel) -> Output:
    spool = None
    if isinstance(output, SyslogOutput | HttpOutput) and output.spool is not None:
        try:
            spool = Spool(Path(output.spool) / name.replace("/", "_"), output.spool_bytes)
        except OSError as error:
            log.error("Output runs without its spool", extra={"output": name, "err": str(error)})
    return Output(
        name,
        channel,
        _printer(config, output.format),
        query=output.query(),
        priority=output.priority,
        queue_limit=output.queue,
        spool=spool,
    )


def _channel(output: AnyOutput) -> Channel:
    if isinstance(output, StdoutOutput):
        return StdoutChannel()
    if isinstance(output, FileOutput):
        return FileChannel(Path(output.filename))
    if isinstance(output, SyslogOutput):
        return SyslogChannel(
            SyslogTarget(
                output.protocol,
                output.host,
                output.port or _SYSLOG_PORTS[output.protocol],
                output.facility,
                output.app_name,
                output.timeout_seconds,
                _tls(output) if output.protocol == "tls" else None,
            )
        )
    one = "application/json" if output.format == "json" else "text/plain; charset=utf-8"
    many = "application/x-ndjson" if output.format == "json" else one
    secret = {name: value.get_secret_value() for name, value in output.headers.items()}
    return HttpChannel(
        HttpTarget(
            output.url,
            one if output.batch == 1 else many,
            output.batch,
            output.timeout_seconds,
            {"User-Agent": output.user_agent, **secret},
            _tls(output) if output.url.startswith("https:") else None,
        )
    )


def _tls(output: SyslogOutput | HttpOutput) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=output.ca_file)
    if output.cert_file is not None:
        context.load_cert_chain(output.cert_file, output.key_file)
    if output.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _printer(config: SecurityConfig, form: str) -> Print:
    def print_event(record: EventRecord) -> str:
        options: OutputOptions = config.output_options(record.hostname)
        if form == "json":
            return record.output.json_line(options)
        return record.output.line(options)

    return print_event
