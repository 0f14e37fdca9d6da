"""tls-alpn-01: a TLS server that shows one certificate for each name and says nothing (RFC 8737)."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from holdfast.host.acme.errors import SolverError
from holdfast.wire.acme.challenges import ALPN, TLS_ALPN_01, Task, alpn_certificate
from holdfast.wire.model import Moment, RandomBytes

CLIENT_SECONDS: Final = 10
MOST_CLIENTS: Final = 16


class AlpnServer:
    """Serves on *address* and *port* from the first task to :meth:`close`.

    Each certificate has a key of its own that lives in memory, and for a moment in a private file, because
    ``ssl`` reads keys from files only. It proves nothing beyond the challenge.
    """

    kinds = frozenset({TLS_ALPN_01})

    def __init__(self, port: int, now: Callable[[], Moment], random: RandomBytes, address: str = "") -> None:
        self._where = (address, port)
        self._now = now
        self._random = random
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._listener: socket.socket | None = None
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)

    @property
    def port(self) -> int:
        """The port that is really used, once it is."""
        return self._where[1] if self._listener is None else int(self._listener.getsockname()[1])

    def present(self, task: Task) -> None:
        """Raises SolverError ``acme.tls-port`` if the port cannot be had."""
        self._contexts[task.identifier.value.lower()] = self._context(task)
        if self._listener is None:
            self._listener = self._listen()
            threading.Thread(
                target=self._serve, args=(self._listener,), name="tls-alpn-01", daemon=True
            ).start()

    def withdraw(self, task: Task) -> None:
        self._contexts.pop(task.identifier.value.lower(), None)

    def close(self) -> None:
        """Stop serving. Idempotent."""
        self._contexts.clear()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None

    def _context(self, task: Task) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        serial = int.from_bytes(self._random(16), "big") >> 1 | 1
        certificate = alpn_certificate(task, key, serial, self._now())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([ALPN])
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        descriptor, name = tempfile.mkstemp(prefix="holdfast-alpn-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(certificate.public_bytes(Encoding.PEM) + pem)
            context.load_cert_chain(name)
        finally:
            Path(name).unlink()
        return context

    def _listen(self) -> socket.socket:
        try:
            return socket.create_server(self._where)
        except OSError as error:
            host, port = self._where
            detail = f"port {port} on {host or 'every address'}: {error.strerror}"
            raise SolverError("acme.tls-port", detail, clause="RFC 8737 §3") from error

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._greet, args=(connection,), daemon=True).start()
            else:
                connection.close()

    def _greet(self, connection: socket.socket) -> None:
        """The handshake, and nothing more: no data is taken or given (RFC 8737 §3)."""
        try:
            connection.settimeout(CLIENT_SECONDS)
            outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            outer.sni_callback = self._choose
            outer.set_alpn_protocols([ALPN])
            with contextlib.suppress(OSError, ValueError), outer.wrap_socket(connection, server_side=True):
                pass
        finally:
            connection.close()
            self._places.release()

    def _choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        chosen = self._contexts.get((name or "").lower())
        if chosen is None:
            return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
        tls.context = chosen
        return None
