"""Brings the numbers to where they are read: a file for node_exporter's textfile collector, and by option a
loopback endpoint. The file is written when a number changed and not otherwise."""

from __future__ import annotations

import os
import selectors
import socket
from typing import Final

from holdfast.host.journal import Log
from holdfast.resident.attempt import Result
from holdfast.resident.messages import METRICS_FAILED
from holdfast.resident.metrics import Metrics
from holdfast.resident.reports import Settings
from holdfast.resident.scrape import Endpoint

LOOPBACK: Final = ("127.0.0.1", "::1")


class Publisher:
    """Follows the settings: where to, if at all."""

    def __init__(self, metrics: Metrics, log: Log, selector: selectors.BaseSelector) -> None:
        self._metrics = metrics
        self._log = log
        self._selector = selector
        self._file = ""
        self._written = ""
        self._address: tuple[str, int] | None = None
        self.endpoint: Endpoint | None = None

    def configured(self, settings: Settings) -> None:
        """Take over new places."""
        if settings.metrics_file != self._file:
            self._file, self._written = settings.metrics_file, ""
        if settings.metrics_listen != self._address:
            self.close()
            self._address = settings.metrics_listen
            self._open()

    def finished(self, result: Result) -> None:
        """An attempt ended."""
        self._metrics.count(result)
        text = self._metrics.text(scraped=False)
        if self._file and text != self._written:
            self._write(text)

    def close(self) -> None:
        """Stop listening."""
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None

    def _write(self, text: str) -> None:
        """A reader sees the old file or the new one. Numbers need not survive a power cut, so no sync."""
        temporary = f"{self._file}.new"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o644), "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            os.replace(temporary, self._file)
            self._written = text
        except OSError as error:
            self._log.event(METRICS_FAILED, f"cannot write {self._file}: {error.strerror}")

    def _open(self) -> None:
        if self._address is None:
            return
        host, port = self._address
        try:
            if host not in LOOPBACK:
                raise OSError(None, "metrics are for this host only")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family)
        except OSError as error:
            self._log.event(METRICS_FAILED, f"cannot listen on {host}, port {port}: {error.strerror}")
            return
        self.endpoint = Endpoint(listener, self._selector, lambda: self._metrics.text(scraped=True))
