"""http-01: one page for each token, on a port of its own, while a step lasts (RFC 8555 §8.3).

It answers exactly the paths that were presented and nothing else, reads a bounded request line, and gives
each client a few seconds. It runs in the worker, which ends with the step.
"""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from holdfast.host.acme.errors import SolverError
from holdfast.wire.acme.challenges import HTTP_01, Task

CLIENT_SECONDS: Final = 10
MOST_CLIENTS: Final = 16


class HttpPages:
    """Serves on *address* and *port* from the first task to :meth:`close`."""

    kinds = frozenset({HTTP_01})

    def __init__(self, port: int, address: str = "") -> None:
        self._where = (address, port)
        self._pages: dict[str, bytes] = {}
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is really used, once it is."""
        return self._where[1] if self._server is None else int(self._server.server_address[1])

    def present(self, task: Task) -> None:
        """Raises SolverError ``acme.http-port`` if the port cannot be had."""
        self._pages[task.http_target] = task.key_authorization.encode()
        if self._server is None:
            self._server = self._listen()
            threading.Thread(target=self._server.serve_forever, name="http-01", daemon=True).start()

    def withdraw(self, task: Task) -> None:
        self._pages.pop(task.http_target, None)

    def close(self) -> None:
        """Stop serving. Idempotent."""
        self._pages.clear()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _listen(self) -> _Server:
        try:
            return _Server(self._where, self._pages)
        except OSError as error:
            host, port = self._where
            detail = f"port {port} on {host or 'every address'}: {error.strerror}"
            raise SolverError("acme.http-port", detail, clause="RFC 8555 §8.3") from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, where: tuple[str, int], pages: dict[str, bytes]) -> None:
        self.pages = pages
        self.places = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__(where, _Page)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is its own business."""


class _Page(BaseHTTPRequestHandler):
    timeout = CLIENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path)
        self.send_response(404 if page is None else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(page or b"")))
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(page or b"")

    def version_string(self) -> str:
        return "holdfast"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Strangers knock at open ports; a log line for each would fill the journal."""
