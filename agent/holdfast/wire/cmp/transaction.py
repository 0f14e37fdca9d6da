"""One CMP transaction: the header of every message of ours, the checks of every answer (RFC 9810 §5.1.1).

What must survive a power cut goes into a token: identifiers, nonces, and who protects the answers. It holds
no secret.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from holdfast.wire import der
from holdfast.wire.cmp import bodies, oids, paths
from holdfast.wire.cmp.bodies import WHOLE_MESSAGE, ErrorContent, Failure, Status, StatusInfo
from holdfast.wire.cmp.message import Body, Header, Message, encode
from holdfast.wire.cmp.protection import Protector, Verifier, same_name
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.identified import NULL_DN, Info
from holdfast.wire.model import ClockState, Exchange, HttpResponse, Moment, RandomBytes, Rejected

NONCE: Final = 16
VERSIONS: Final = (2, 3)
_ESTRANGED: Final = (Failure.NOT_AUTHORIZED, Failure.SIGNER_NOT_TRUSTED, Failure.BAD_MESSAGE_CHECK)
_BUSY: Final = (Failure.SYSTEM_UNAVAIL, Failure.SYSTEM_FAILURE)


@dataclass(frozen=True, slots=True)
class CmpLimits:
    """Bounds: octets of a message, certificates of an answer, and waits that a server asks for."""

    message: int = 256 * 1024
    issued_certificates: int = 16
    shortest_wait: timedelta = timedelta(seconds=1)
    longest_wait: timedelta = timedelta(days=4)

    def clamped(self, seconds: int) -> timedelta:
        """*seconds* as a wait within the bounds."""
        shortest, longest = (int(w.total_seconds()) for w in (self.shortest_wait, self.longest_wait))
        return timedelta(seconds=min(max(seconds, shortest), longest))


@dataclass(frozen=True, slots=True)
class Server:
    """Where messages go. ``recipient``: the server's name as GeneralName, NULL-DN if unknown; a signed answer
    must then come from it. ``operations``: whether the operation is told in the path, too (RFC 9811 §3.4)."""

    path: str = paths.WELL_KNOWN
    recipient: bytes = NULL_DN
    operations: bool = False
    profile: str | None = None

    def target(self, kind: Body, support: str = "") -> str:
        """The target of a request of *kind*; *support* is what a genm asks for."""
        name = paths.OPERATIONS.get(kind) or paths.SUPPORT.get(support)
        return f"{self.path.rstrip('/')}/{name}" if self.operations and name else self.path


@dataclass(frozen=True, slots=True)
class Waiting:
    """The answer is not ready. ``after`` is None if the server did not say when to ask."""

    after: timedelta | None
    request_id: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """An authenticated no."""

    status: StatusInfo
    text: str

    def outcome(self) -> Rejected:
        """As it is reported. Raises RemoteProtocolError ``cmp.unavailable`` if the server cannot serve."""
        if self.status.has(*_BUSY):
            raise RemoteProtocolError("cmp.unavailable", self.text, clause="RFC 9810 §5.2.3", busy=True)
        if self.status.has(*_ESTRANGED):
            return Rejected("cmp.unauthorized", self.text, estranged=True)
        if self.status.has(Failure.UNSUPPORTED_VERSION):
            return Rejected("cmp.unsupported", self.text, unsupported=True)
        return Rejected("cmp.rejected", self.text)


@dataclass(slots=True)
class Transaction:
    """The state of one transaction; see the module's text.

    ``first`` is the nonce of our first message, ``last`` that of our latest; ``peer`` the nonce of the latest
    answer, and ``authority`` who protected it. ``ciphertext`` is public: what a KEM key made the key of our
    MACs from.
    """

    server: Server
    protector: Protector
    verifier: Verifier
    random: RandomBytes = field(repr=False)
    id: bytes
    pvno: int = 2
    limits: CmpLimits = field(default_factory=CmpLimits)
    first: bytes = b""
    last: bytes = b""
    peer: bytes = b""
    authority: bytes = b""
    target: str = ""
    ciphertext: bytes = b""

    def ask(
        self,
        kind: Body,
        content: bytes,
        now: Moment,
        *,
        expected: Iterable[Body],
        infos: tuple[Info, ...] = (),
        support: str = "",
        bare: bool = False,
    ) -> Exchange[Message | Waiting | Refusal]:
        """Send one message; return the answer once every check of its envelope held.

        *bare*: the message has no protection, and a genp may come without (RFC 9810 appendix E). If it has
        one, that must hold.

        The answer is of an *expected* kind, or it asks for patience, or refuses. Raises TrustError
        ``cmp.protection``, ``cmp.protection-kind``, ``cmp.unprotected``, ``cmp.sender``,
        ``cmp.signer-changed``, ``cmp.transaction``, ``cmp.nonce``, those of the chain and of the MAC;
        RemoteProtocolError ``cmp.version``, ``cmp.unprotected-error``, ``cmp.body`` and those of reading.
        """
        if not self.target:
            self.target = self.server.target(kind, support)
        message = self._encode(kind, content, now, infos, bare=bare)
        resp = yield paths.post(self.target, message)
        answer = self._checked(resp, now, bare=bare)
        if answer.kind is Body.ERROR:
            return self._error(bodies.read_error(answer.content))
        if answer.kind is Body.POLL_REP and kind is Body.POLL_REQ:
            return self._poll_reply(answer)
        if answer.kind not in set(expected):
            detail = f"{answer.kind.label} in answer to {kind.label}"
            raise RemoteProtocolError("cmp.body", detail, clause="RFC 9810 §5.1.2")
        return answer

    def poll(
        self, request_id: int, now: Moment, *, expected: Iterable[Body]
    ) -> Exchange[Message | Waiting | Refusal]:
        """Ask whether the answer is ready (RFC 9483 §4.4)."""
        content = bodies.poll_request(request_id)
        return (yield from self.ask(Body.POLL_REQ, content, now, expected=expected))

    def _encode(
        self, kind: Body, content: bytes, now: Moment, infos: tuple[Info, ...], *, bare: bool
    ) -> bytes:
        algorithm, protect = (None, None) if bare else self.protector.start(self.random)
        self.last = self.random(NONCE)
        self.first = self.first or self.last
        if self.server.profile is not None:
            profile = der.sequence(der.text(self.server.profile))
            infos = (*infos, Info(oids.CERT_PROFILE, profile))
        header = Header(
            sender=self.protector.sender,
            recipient=self.server.recipient,
            pvno=self.pvno,
            message_time=None if now.state is ClockState.UNKNOWN else now.now,
            protection=algorithm,
            sender_kid=self.protector.key_id,
            transaction=self.id,
            sender_nonce=self.last,
            recip_nonce=self.peer,
            general_info=infos,
        )
        return encode(header, kind, content, protect=protect, extra_certs=self.protector.extra_certs)

    def _checked(self, resp: HttpResponse, now: Moment, *, bare: bool) -> Message:
        answer = paths.read_answer(resp, now, limit=self.limits.message)
        header = answer.header
        if header.pvno not in VERSIONS:
            raise RemoteProtocolError("cmp.version", f"pvno {header.pvno}", clause="RFC 9810 §7")
        if bare and answer.kind is Body.GENP and header.protection is None and answer.protection is None:
            authority = b""
        elif header.protection is None or answer.protection is None:
            raise _unprotected(answer)
        else:
            authority = self.verifier.check(answer, now)
        if self.authority not in (b"", authority):
            detail = "the answer is protected by somebody else than the one before"
            raise TrustError("cmp.signer-changed", detail, clause="RFC 9483 §3.5")
        if header.transaction != self.id:
            detail = "the answer belongs to another transaction"
            raise TrustError("cmp.transaction", detail, clause="RFC 9810 §5.1.1")
        # A delayed answer may be to the first message: a CA behind the RA never saw the polls.
        if header.recip_nonce not in (self.last, self.first):
            detail = "the answer does not repeat the nonce of our message"
            raise TrustError("cmp.nonce", detail, clause="RFC 9483 §3.5")
        self._check_sender(answer)
        self.authority, self.peer = authority, header.sender_nonce
        return answer

    def _check_sender(self, answer: Message) -> None:
        if self.server.recipient == NULL_DN or not answer.extra_certs:
            return
        if not same_name(answer.header.sender, self.server.recipient):
            detail = "the answer comes from another sender than the configured server"
            raise TrustError("cmp.sender", detail, clause="RFC 9483 §3.5")

    def _error(self, content: ErrorContent) -> Waiting | Refusal:
        if content.status.status == Status.WAITING:
            return Waiting(None, WHOLE_MESSAGE)
        return Refusal(content.status, content.describe())

    def _poll_reply(self, answer: Message) -> Waiting:
        replies = bodies.read_poll_reply(answer.content)
        if len(replies) != 1:
            detail = f"{len(replies)} entries in pollRep"
            raise RemoteProtocolError("cmp.body", detail, clause="RFC 9483 §4.4")
        return Waiting(self.limits.clamped(replies[0].check_after), replies[0].request_id)

    def token(self, stage: str, **data: str | int) -> bytes:
        """What resumes this transaction at *stage*."""
        nonces = {"first": self.first, "last": self.last, "peer": self.peer, "authority": self.authority}
        state: dict[str, str | int] = {name: value.hex() for name, value in nonces.items()}
        if self.ciphertext:
            state["kem"] = self.ciphertext.hex()
        state |= {"v": 1, "id": self.id.hex(), "pvno": self.pvno, "target": self.target, "stage": stage}
        return json.dumps({**state, **data}, sort_keys=True, separators=(",", ":")).encode()

    def restore(self, token: bytes) -> dict[str, Any]:
        """Go on where *token* was made; returns its stage and data.

        Raises LocalProtocolError ``cmp.resume``.
        """
        try:
            state = json.loads(token)
            if state["v"] != 1:
                raise ValueError(f"version {state['v']}")
            self.id, self.pvno, self.target = (
                bytes.fromhex(state["id"]),
                int(state["pvno"]),
                str(state["target"]),
            )
            self.first, self.last = bytes.fromhex(state["first"]), bytes.fromhex(state["last"])
            self.peer, self.authority = bytes.fromhex(state["peer"]), bytes.fromhex(state["authority"])
            self.ciphertext = bytes.fromhex(state.get("kem", ""))
            return {"stage": str(state["stage"]), **state}
        except (ValueError, KeyError, TypeError) as error:
            raise LocalProtocolError("cmp.resume", f"unusable resume token: {error}"[:300]) from error


def _unprotected(answer: Message) -> HoldfastError:
    """An error may come unprotected, because the server did not know us: it is told, and nothing follows."""
    if answer.kind is Body.ERROR:
        text = bodies.read_error(answer.content).describe()
        detail = f"an error that nobody vouches for: {text}"
        return RemoteProtocolError("cmp.unprotected-error", detail, clause="RFC 9483 §3.6.4")
    return TrustError("cmp.unprotected", f"{answer.kind.label} without protection", clause="RFC 9483 §3.2")


def pack(ders: Iterable[bytes]) -> str:
    """Certificates as one text for a token."""
    return ",".join(base64.b64encode(each).decode() for each in ders)


def unpack(text: str) -> tuple[bytes, ...]:
    """What :func:`pack` packed. Raises LocalProtocolError ``cmp.resume``."""
    try:
        return tuple(base64.b64decode(each, validate=True) for each in text.split(",") if each)
    except ValueError as error:
        raise LocalProtocolError("cmp.resume", "unusable certificates in the resume token") from error
