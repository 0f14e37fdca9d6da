"""Making a chip's first keys and their statement of each other, and opening what is sealed for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from holdfast.wire.errors import KeyStoreError
from holdfast.wire.tpm.octets import Octets
from holdfast.wire.tpm.public import HASHES
from holdfast.wire.tpm.tcg_csr import IdevidContents, build_contents, build_request
from holdfast.wire.tpm.templates import ACTIVATE_CREDENTIAL, CERTIFY, Level, Template, iak, idevid
from holdfast_factory.chips import commands
from holdfast_factory.chips.commands import ENDORSEMENT, OWNER, Command
from holdfast_factory.chips.dialogue import Batch, Dialogue, TpmRefusal
from holdfast_factory.chips.endorsement import Ek, Look, public_area

IDEVID_HANDLE, IAK_HANDLE, SRK_HANDLE = 0x81020000, 0x81020001, 0x81000001
_ALGORITHM: Final = {name: code for code, name in HASHES.items()}
STORAGE_ROOT: Final = bytes.fromhex("0023000b00030472000000060080004300100003001000000000")
"""TPMT_PUBLIC of the P-256 storage root key that the agent, tpm2-tools and users of TSS2 PEM files derive."""
_RSASSA: Final = b"\x00\x14"
_ECDSA: Final = 0x0018
_NOT_OURS: Final = (0x9F, 0x84, 0x9B, 0xA2, 0xA6, 0xA7)  # integrity, value, sensitive, size, point


@dataclass(frozen=True, slots=True)
class Made:
    """The keys, at their handles: TPMT_PUBLIC of each, the IAK's statement of the IDevID, and the IDevID's
    signature over the request."""

    idevid: bytes = field(repr=False)
    iak: bytes = field(repr=False)
    request: bytes = field(repr=False)


def qualifying(model: str, serial: str) -> bytes:
    """What the IAK states besides the key: for which device it was asked."""
    return hashlib.sha256(b"\0".join((b"IDevID", model.encode(), serial.encode()))).digest()


def make(seen: Look, ek: Ek, level: Level, model: str, serial: str) -> Dialogue[Made]:
    """Make what is missing of IDevID, IAK and storage root key, have the first certified by the second and
    the request signed: four round trips for a bare chip, three for one that has the keys.

    Raises KeyStoreError ``factory.handle-taken`` if a handle holds a key that the template does not make.
    """
    templates = {IAK_HANDLE: iak(level), IDEVID_HANDLE: idevid(level)}
    areas, transient = yield from _provide(seen, templates)
    persist = tuple(
        command
        for handle, loaded in transient.items()
        for command in (commands.evict(OWNER, loaded, handle), commands.flush(loaded))
    )
    root = () if SRK_HANDLE in seen.persistent else (storage_root_key(),)
    policy = templates[IDEVID_HANDLE]
    *before, session = yield (*persist, *root, commands.start_policy(_ALGORITHM[policy.digest]))
    keep: Batch = ()
    if root:
        made = before[-1].handle
        keep = (commands.evict(OWNER, made, SRK_HANDLE), commands.flush(made))
    stated = commands.certify(IDEVID_HANDLE, IAK_HANDLE, qualifying(model, serial), session.handle)
    *_, statement = yield (*keep, *_satisfied(policy, session.handle, CERTIFY), stated)
    octets = statement.read()
    contents = IdevidContents(
        model=model.encode(),
        serial=serial.encode(),
        ek_certificate=ek.certificates[0] if ek.certificates else b"",
        iak=areas[IAK_HANDLE],
        idevid=areas[IDEVID_HANDLE],
        idevid_statement=octets.sized(),
        idevid_statement_signature=octets.rest,
    )
    signed = build_contents(contents, policy.digest)
    (signature,) = yield (sign(level, signed),)
    return Made(areas[IDEVID_HANDLE], areas[IAK_HANDLE], build_request(signed, signature.parameters))


def sign(level: Level, data: bytes) -> Command:
    """TPM2_Sign by the IDevID key; the answer's parameters are a TPMT_SIGNATURE."""
    template = idevid(level)
    scheme = _RSASSA + _ALGORITHM[template.digest].to_bytes(2, "big") if level is Level.H1 else b"\x00\x10"
    return commands.sign(IDEVID_HANDLE, hashlib.new(template.digest, data).digest(), scheme)


def plain_signature(data: bytes) -> bytes:
    """A TPMT_SIGNATURE as others write it: ECDSA in DER, RSA as it is."""
    octets = Octets(data, "the signature")
    scheme, _ = octets.number(2), octets.number(2)
    first = octets.sized()
    if scheme != _ECDSA:
        return first
    return encode_dss_signature(int.from_bytes(first, "big"), int.from_bytes(octets.sized(), "big"))


def open_sealed(ek: Ek, level: Level, id_object: bytes, secret: bytes) -> Dialogue[bytes]:
    """TPM2_ActivateCredential: two round trips. The EK is flushed, if it was transient.

    Raises KeyStoreError ``key.activation``: what was sealed is for another EK or another IAK.
    """
    policy = iak(level)
    starts = [commands.start_policy(_ALGORITHM[policy.digest])]
    if ek.by_policy:
        starts.append(commands.start_policy(ek.digest))
    sessions = [answer.handle for answer in (yield tuple(starts))]
    session, other = sessions[0], sessions[1] if ek.by_policy else None
    secret_of = () if other is None else (commands.policy_secret(ENDORSEMENT, other),)
    opening = commands.activate((IAK_HANDLE, ek.handle), id_object, secret, (session, other))
    done = (commands.flush(ek.handle),) if ek.transient else ()
    before = (*_satisfied(policy, session, ACTIVATE_CREDENTIAL), *secret_of)
    try:
        answers = yield (*before, opening, *done)
    except TpmRefusal as refusal:
        yield (*map(commands.flush, sessions), *done)  # a session lives on when its command fails
        if refusal.command.code == ACTIVATE_CREDENTIAL and refusal.is_code(*_NOT_OURS):
            detail = "the secret was sealed for another TPM or another attestation key"
            raise KeyStoreError("key.activation", detail) from refusal
        raise
    return answers[len(before)].read().sized()


def _satisfied(template: Template, session: int, code: int) -> Batch:
    """Bring *session* to where the template's policy lets the command *code* pass."""
    return (
        commands.policy_secret(ENDORSEMENT, session),
        commands.policy_command_code(session, code),
        commands.policy_or(session, template.branches),
    )


def _provide(seen: Look, templates: dict[int, Template]) -> Dialogue[tuple[dict[int, bytes], dict[int, int]]]:
    """Public areas by handle, and which were made just now: their transient handles."""
    answers = yield tuple(
        commands.read_public(handle)
        if handle in seen.persistent
        else commands.create_primary(ENDORSEMENT, template.area)
        for handle, template in templates.items()
    )
    areas: dict[int, bytes] = {}
    transient: dict[int, int] = {}
    for (handle, template), answer in zip(templates.items(), answers, strict=True):
        areas[handle] = public_area(answer)
        if handle not in seen.persistent:
            transient[handle] = answer.handle
        elif not areas[handle].startswith(template.fixed):
            detail = f"{handle:#x} holds a key that the template of an {template.name} does not make"
            raise KeyStoreError("factory.handle-taken", detail)
    return areas, transient


def storage_root_key() -> Command:
    """Makes the standard storage root key, below which the agent makes its own."""
    return commands.create_primary(OWNER, STORAGE_ROOT)
