"""The TPM commands that the line needs, as octets (TPM 2.0 Library, Part 3). Pure: nothing is sent here.

The line writes them itself rather than through ESAPI for two reasons: ESAPI puts a ReadPublic before most
uses of a handle, and it waits for each answer; a unit at the end of a serial line wants several commands in
one round trip. Authorisation is by empty passwords and by policy sessions, so nothing is computed
over a command's names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from holdfast.wire.errors import KeyStoreError, RemoteProtocolError
from holdfast.wire.tpm.octets import Octets, sized

OWNER, NULL_HIERARCHY, LOCKOUT = 0x40000001, 0x40000007, 0x4000000A
ENDORSEMENT, PLATFORM = 0x4000000B, 0x4000000C
_PASSWORD: Final = 0x40000009
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_HEADER: Final = 10
_NULL_ALGORITHM: Final = b"\x00\x10"
_POLICY_SESSION: Final = 1
_HANDLES, _TPM_PROPERTIES = 1, 6
_HASHCHECK: Final = b"\x80\x24"
_NONCE_OCTETS: Final = 16
_MOST_LISTED: Final = 254  # TPM_CAP_HANDLES with 1024 octets, Part 2 §10.9.1


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its code, handles, how the first of them are authorised, and the parameters.

    ``authorised``: a session handle for each handle that needs one, None for the empty password.
    ``keep``: sessions live on after it. ``gives_handle``: the answer begins with one.
    """

    code: int
    handles: tuple[int, ...] = ()
    parameters: bytes = field(default=b"", repr=False)
    authorised: tuple[int | None, ...] = ()
    gives_handle: bool = False
    keep: bool = False

    @property
    def octets(self) -> bytes:
        body = b"".join(handle.to_bytes(4, "big") for handle in self.handles)
        if self.authorised:
            area = b"".join(_authorisation(each, self.keep) for each in self.authorised)
            body += len(area).to_bytes(4, "big") + area
        body += self.parameters
        tag = _SESSIONS if self.authorised else _NO_SESSIONS
        head = tag.to_bytes(2, "big") + (_HEADER + len(body)).to_bytes(4, "big")
        return head + self.code.to_bytes(4, "big") + body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: ``rc`` 0 for done, the ``handle`` of what was made, the parameters."""

    rc: int
    handle: int = 0
    parameters: bytes = field(default=b"", repr=False)

    def read(self) -> Octets:
        return Octets(self.parameters, "the TPM's answer")


def parse_answer(command: Command, data: bytes) -> Answer:
    """Read the answer to *command*. Raises KeyStoreError ``tpm.answer`` if it is none."""
    octets = Octets(data, "the TPM's answer")
    try:
        tag, size, rc = octets.number(2), octets.number(4), octets.number(4)
        if size != len(data):
            raise RemoteProtocolError("tpm.syntax", f"{len(data)} octets where {size} are stated")
        if rc != 0:
            return Answer(rc)
        handle = octets.number(4) if command.gives_handle else 0
        parameters = octets.take(octets.number(4)) if tag == _SESSIONS else octets.rest
    except RemoteProtocolError as error:
        raise KeyStoreError("tpm.answer", error.detail) from error
    return Answer(rc, handle, parameters)


def _authorisation(session: int | None, keep: bool) -> bytes:
    handle = _PASSWORD if session is None else session
    return handle.to_bytes(4, "big") + b"\0\0" + bytes([1 if keep and session is not None else 0]) + b"\0\0"


def create_primary(hierarchy: int, area: bytes) -> Command:
    """*area*: TPMT_PUBLIC of the template. Gives the key's transient handle and TPM2B_PUBLIC."""
    sensitive = sized(sized(b"") + sized(b""))
    parameters = sensitive + sized(area) + sized(b"") + bytes(4)
    return Command(0x131, (hierarchy,), parameters, (None,), gives_handle=True)


def evict(hierarchy: int, handle: int, persistent: int) -> Command:
    """Keep the transient *handle* at *persistent*; or remove what is there if both are the same."""
    return Command(0x120, (hierarchy, handle), persistent.to_bytes(4, "big"), (None,))


def flush(handle: int) -> Command:
    return Command(0x165, (), handle.to_bytes(4, "big"))


def read_public(handle: int) -> Command:
    return Command(0x173, (handle,))


def handles(first: int, count: int) -> Command:
    """List handles from *first* on; :func:`listed` reads the answer."""
    return _capability(_HANDLES, first, count)


def properties(first: int, count: int) -> Command:
    """List TPM_PT values; :func:`valued` reads the answer."""
    return _capability(_TPM_PROPERTIES, first, count)


def _capability(kind: int, first: int, count: int) -> Command:
    return Command(0x17A, (), b"".join(each.to_bytes(4, "big") for each in (kind, first, count)))


def listed(answer: Answer) -> tuple[int, ...]:
    octets = answer.read()
    octets.take(5)
    return tuple(octets.number(4) for _ in range(min(octets.number(4), _MOST_LISTED)))


def valued(answer: Answer) -> dict[int, int]:
    octets = answer.read()
    octets.take(5)
    return {octets.number(4): octets.number(4) for _ in range(min(octets.number(4), _MOST_LISTED))}


def start_policy(algorithm: int) -> Command:
    """A policy session whose digest is by *algorithm* (TPM_ALG_ID). Unsalted and unbound: nothing secret
    passes in it. The nonce only sets the TPM's length of its own."""
    null = NULL_HIERARCHY.to_bytes(4, "big")
    fixed = sized(bytes(_NONCE_OCTETS)) + sized(b"") + bytes([_POLICY_SESSION]) + _NULL_ALGORITHM
    parameters = fixed + algorithm.to_bytes(2, "big")
    return Command(0x176, (int.from_bytes(null, "big"),) * 2, parameters, gives_handle=True)


def policy_secret(entity: int, session: int) -> Command:
    """By the empty password of *entity*."""
    return Command(0x151, (entity, session), sized(b"") * 3 + bytes(4), (None,))


def policy_command_code(session: int, code: int) -> Command:
    return Command(0x16C, (session,), code.to_bytes(4, "big"))


def policy_or(session: int, branches: tuple[bytes, ...]) -> Command:
    return Command(0x171, (session,), len(branches).to_bytes(4, "big") + b"".join(map(sized, branches)))


def certify(certified: int, signer: int, qualifying: bytes, session: int) -> Command:
    """*session* meets the policy of *certified*; *signer* has the empty password and a scheme of its own."""
    return Command(0x148, (certified, signer), sized(qualifying) + _NULL_ALGORITHM, (session, None))


def activate(
    keys: tuple[int, int], id_object: bytes, secret: bytes, sessions: tuple[int | None, int | None]
) -> Command:
    """*keys*: the one whose Name was sealed for, then the storage key. *sessions* meet the policies of both,
    None is the empty password."""
    return Command(0x147, keys, sized(id_object) + sized(secret), sessions)


def sign(key: int, digest: bytes, scheme: bytes = _NULL_ALGORITHM) -> Command:
    """*scheme*: TPMT_SIG_SCHEME for a key that has none of its own. Gives TPMT_SIGNATURE."""
    ticket = _HASHCHECK + NULL_HIERARCHY.to_bytes(4, "big") + sized(b"")
    return Command(0x15D, (key,), sized(digest) + scheme + ticket, (None,))


def nv_read_public(index: int) -> Command:
    return Command(0x169, (index,))


def nv_read(authority: int, index: int, size: int, offset: int) -> Command:
    return Command(0x14E, (authority, index), size.to_bytes(2, "big") + offset.to_bytes(2, "big"), (None,))


def nv_define(authority: int, index: int, attributes: int, size: int) -> Command:
    space = index.to_bytes(4, "big") + b"\0\x0b" + attributes.to_bytes(4, "big") + sized(b"")
    return Command(0x12A, (authority,), sized(b"") + sized(space + size.to_bytes(2, "big")), (None,))


def nv_undefine(authority: int, index: int) -> Command:
    return Command(0x122, (authority, index), b"", (None,))


def nv_write(authority: int, index: int, content: bytes, offset: int) -> Command:
    return Command(0x137, (authority, index), sized(content) + offset.to_bytes(2, "big"), (None,))


def nv_write_lock(authority: int, index: int) -> Command:
    return Command(0x138, (authority, index), b"", (None,))


def lockout_parameters(tries: int, recovery: int, lockout_recovery: int) -> Command:
    """*recovery*: seconds to forget one failure; *lockout_recovery*: after a wrong lockout password."""
    values = b"".join(each.to_bytes(4, "big") for each in (tries, recovery, lockout_recovery))
    return Command(0x13A, (LOCKOUT,), values, (None,))


def hierarchy_control(hierarchy: int) -> Command:
    """Switch *hierarchy* off until the next start of the TPM, by the platform's authorisation."""
    return Command(0x121, (PLATFORM,), hierarchy.to_bytes(4, "big") + b"\0", (None,))
