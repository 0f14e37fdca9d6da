"""Talk to the resident agent over its control socket: for the command line, not for the agent itself.

::

    with ControlClient() as agent:
        agent.get_status()                    # the Varlink type Status, see holdfast.resident.interface
        for progress in agent.renew("ldevid"):    # progress as it comes; ends when the step has ended well
            ...
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from holdfast.wire.errors import HoldfastError, Retry

DEFAULT_SOCKET: Final = Path("/run/holdfast/control")
MAX_REPLY: Final = 256 << 10
ANSWER_SECONDS: Final = 10.0
_AGENT: Final = "io.holdfast.Agent"


class ControlError(HoldfastError):
    """The agent could not be asked, or refused.

    Codes: ``control.unreachable`` (it does not run), ``control.denied``, ``control.no-such-identity``,
    ``control.no-certificate``, ``control.failed`` (the step failed; ``detail`` has its code and detail),
    ``control.protocol``.
    """


class ControlDenied(ControlError):
    """Only members of the agent's group may read, and only root may cause changes."""

    retry: ClassVar[Retry] = Retry.OPERATOR


class ControlClient:
    """One connection. Use it in a ``with`` block; the connection is made on entry.

    *seconds* bounds each wait for an answer, but not the wait for a step to end.
    """

    def __init__(self, path: Path = DEFAULT_SOCKET, *, seconds: float = ANSWER_SECONDS) -> None:
        self._path = path
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._received = bytearray()

    def __enter__(self) -> Self:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(self._seconds)
        try:
            sock.connect(str(self._path))
        except PermissionError as error:
            sock.close()
            raise ControlDenied("control.denied", f"{self._path}: {error.strerror}") from error
        except OSError as error:
            sock.close()
            raise ControlError("control.unreachable", f"{self._path}: {error.strerror or error}") from error
        self._socket = sock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def get_status(self) -> dict[str, Any]:
        """What the agent knows (Varlink type Status)."""
        return _object(self._only("GetStatus"), "status")

    def get_certificate(self, identity: str) -> str:
        """The chain of *identity* as PEM, leaf first."""
        chain = self._only("GetCertificate", {"identity": identity}).get("chain")
        if not isinstance(chain, str):
            raise ControlError("control.protocol", "a reply without a chain")
        return chain

    def reload(self) -> dict[str, Any]:
        """Read the configuration anew; returns the status when it is in force."""
        *_, last = self._stream("Reload", {}, more=False, patient=True)
        return _object(last, "status")

    def watch(self) -> Iterator[dict[str, Any]]:
        """The status now, and again whenever it changes, until the agent ends."""
        for reply in self._stream("Watch", {}, more=True, patient=True):
            yield _object(reply, "status")

    def renew(self, identity: str) -> Iterator[dict[str, Any]]:
        """Renew *identity* now. Yields progress (Varlink type Progress) until the step has ended."""
        yield from self._progress("Renew", {"identity": identity})

    def step(self) -> Iterator[dict[str, Any]]:
        """Do what is due now. Yields progress until the step has ended."""
        yield from self._progress("Step", {})

    def _progress(self, method: str, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for reply in self._stream(method, parameters, more=True, patient=True):
            if isinstance(reply.get("progress"), dict):
                yield reply["progress"]

    def _only(self, method: str, parameters: Mapping[str, Any] = {}) -> dict[str, Any]:
        (reply,) = self._stream(method, parameters, more=False, patient=False)
        return reply

    def _stream(
        self, method: str, parameters: Mapping[str, Any], *, more: bool, patient: bool
    ) -> Iterator[dict[str, Any]]:
        """The parameters of every reply to one call. Raises ControlError."""
        call = {"method": f"{_AGENT}.{method}", "parameters": parameters, **({"more": True} if more else {})}
        sock = self._connected()
        try:
            sock.settimeout(self._seconds)
            sock.sendall(json.dumps(call).encode() + b"\0")
            sock.settimeout(None if patient else self._seconds)
            while True:
                reply = self._reply(sock)
                if reply.get("error"):
                    raise _error(reply)
                told = reply.get("parameters") or {}
                if not isinstance(told, dict):
                    raise ControlError("control.protocol", "a reply without parameters")
                yield told
                if reply.get("continues") is not True:
                    return
        except OSError as error:
            raise ControlError("control.unreachable", f"{self._path}: {error.strerror or error}") from error

    def _reply(self, sock: socket.socket) -> dict[str, Any]:
        while (end := self._received.find(b"\0")) < 0:
            if len(self._received) > MAX_REPLY:
                raise ControlError("control.protocol", f"a reply of more than {MAX_REPLY} bytes")
            data = sock.recv(16 << 10)
            if not data:
                raise ControlError("control.unreachable", f"{self._path}: the agent ended the connection")
            self._received += data
        message = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            reply = json.loads(message)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            raise ControlError("control.protocol", "a reply that is no JSON object")
        return reply

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ControlError("control.unreachable", "the connection is not open")
        return self._socket


def _object(reply: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = reply.get(name)
    if not isinstance(value, dict):
        raise ControlError("control.protocol", f"a reply without {name}")
    return value


def _error(reply: Mapping[str, Any]) -> ControlError:
    name = str(reply["error"])
    parameters = reply.get("parameters")
    told: Mapping[str, Any] = parameters if isinstance(parameters, dict) else {}
    match name:
        case "org.varlink.service.PermissionDenied":
            return ControlDenied(
                "control.denied", "only root may do this, and only the agent's group may read"
            )
        case "io.holdfast.Agent.NoSuchIdentity":
            return ControlError("control.no-such-identity", f"no identity {told.get('identity')}")
        case "io.holdfast.Agent.NoCertificate":
            return ControlError("control.no-certificate", f"{told.get('identity')} has no certificate yet")
        case "io.holdfast.Agent.Failed":
            return ControlError("control.failed", f"{told.get('code')}: {told.get('detail')}")
    return ControlError("control.failed", name)
