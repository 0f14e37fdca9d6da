"""What a station demands of a TPM before the factory's CA signs for it. Nothing here touches a unit.

The chain of belief: a maker's root says that the endorsement key (EK) is a TPM's; only the TPM with that EK
opens a secret, and only for the attestation key (IAK) whose Name the secret names; an IAK with these
attributes states only what is true inside its TPM, and it states the IDevID key; the IDevID key signs the
request. So all three keys are in this one TPM, and the request is its own.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.wire import certificates
from holdfast.wire.algorithms import DIGESTS, Digest, PublicKey, accepted_key, spki, verify
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Chain, ClockState, Moment, RandomBytes
from holdfast.wire.tpm import ek_profile
from holdfast.wire.tpm.attested import parse_certify, require_certified, verify_statement
from holdfast.wire.tpm.credential import make_credential
from holdfast.wire.tpm.ek_profile import ChipMaker
from holdfast.wire.tpm.public import TpmPublic, parse_public
from holdfast.wire.tpm.tcg_csr import IdevidRequest, parse_request, verify_request
from holdfast.wire.tpm.templates import ENDORSEMENT, iak, idevid, level_of
from holdfast_factory.chips.keys import qualifying
from holdfast_factory.unit import (
    Certificates,
    Endorsement,
    ProvedKeys,
    ReadBack,
    SealedSecret,
    Shown,
    unit_of,
)

SECRET_OCTETS: Final = 32


class TpmExaminer:
    """See :class:`~holdfast_factory.unit.Examiner`. *makers*: roots of TPM makers, self-signed or not."""

    def __init__(self, makers: Chain) -> None:
        self._makers = makers

    def identify(self, shown: Endorsement) -> str:
        """Raises RemoteProtocolError ``tpm.*``."""
        return unit_of(spki(parse_public(shown.public).key))

    def endorsement(self, shown: Endorsement, now: datetime) -> None:
        """Raises as :func:`holdfast.wire.tpm.ek_profile.judge` does."""
        self.maker(shown, now)

    def maker(self, shown: Endorsement, now: datetime) -> ChipMaker:
        """Who made the TPM, by a certificate that leads to one of the makers."""
        given = certificates.load_all(shown.certificates)
        moment = Moment(now, now, ClockState.TRUSTED)  # a station's clock is trusted: it stands in a factory
        return ek_profile.judge(parse_public(shown.public), given, self._makers, moment)

    def keys(self, shown: Shown, endorsement: Endorsement, model: str, serial: str) -> ProvedKeys:
        """Raises TrustError ``devid.*``, ``attest.*``, ``signature.invalid``; RemoteProtocolError ``tpm.*``,
        ``tcgcsr.*``."""
        request = parse_request(shown.request)
        _require_own(request, shown, endorsement, model, serial)
        signing, attesting = parse_public(shown.idevid), parse_public(shown.iak)
        level = level_of(signing)
        idevid(level).require(signing)
        iak(level).require(attesting)
        verify_request(request, signing)
        _require_stated(request, signing, attesting, qualifying(model, serial))
        return ProvedKeys(spki(signing.key), spki(attesting.key), attesting.name)

    def seal(
        self, keys: ProvedKeys, endorsement: Endorsement, random: RandomBytes
    ) -> tuple[SealedSecret, bytes]:
        """A secret for this EK and this IAK; whoever brings it back has both. Raises RemoteProtocolError."""
        secret = random(SECRET_OCTETS)
        sealed = make_credential(parse_public(endorsement.public), keys.iak_name, secret, random)
        return SealedSecret(sealed.id_object, sealed.encrypted_secret), secret

    def read_back(self, read: ReadBack, installed: Certificates, challenge: bytes) -> None:
        """Raises TrustError ``inspection.certificate``, ``inspection.leftovers``, ``signature.invalid``."""
        for name in ("idevid", "iak"):
            if getattr(read, name) != getattr(installed, name):
                raise TrustError("inspection.certificate", f"NV does not hold the {name} certificate")
        if read.leftovers:
            raise TrustError("inspection.leftovers", f"{read.leftovers} objects are left loaded in the TPM")
        key = accepted_key(x509.load_der_x509_certificate(installed.idevid))
        verify(key, read.signature, challenge, signing_digest(key))


def require_activated(opened: bytes, secret: bytes) -> None:
    """The unit opened what was sealed for it. Raises TrustError ``activation.secret``."""
    if not hmac.compare_digest(opened, secret):
        detail = "not the secret that was sealed: EK and IAK are not in one TPM, or the answer is an old one"
        raise TrustError("activation.secret", detail, clause="TPM 2.0 Part 1 §24")


def signing_digest(key: PublicKey) -> Digest:
    """The digest that the template of *key* signs with."""
    bits = key.key_size if isinstance(key, ec.EllipticCurvePublicKey) else 0
    return DIGESTS[{384: "sha384", 521: "sha512"}.get(bits, "sha256")]()


def _require_own(
    request: IdevidRequest, shown: Shown, endorsement: Endorsement, model: str, serial: str
) -> None:
    """The request is of this unit: not one that was made for, or by, another."""
    contents = request.contents
    if (contents.idevid, contents.iak) != (shown.idevid, shown.iak):
        raise TrustError("devid.swapped", "the request is for other keys than the unit shows")
    if contents.ek_certificate != next(iter(endorsement.certificates), b""):
        raise TrustError("devid.other-tpm", "the request names the endorsement key of another TPM")
    if contents.serial != serial.encode():
        raise TrustError("devid.serial", f"the request is for {contents.serial[:64]!r}, not for {serial!r}")
    if contents.model != model.encode():
        raise TrustError("devid.model", f"the request is for a {contents.model[:64]!r}, not a {model!r}")


def _require_stated(request: IdevidRequest, signing: TpmPublic, attesting: TpmPublic, extra: bytes) -> None:
    """The IAK, a primary key of the endorsement hierarchy, states that the IDevID key is in its TPM."""
    contents = request.contents
    statement = parse_certify(contents.idevid_statement)
    verify_statement(contents.idevid_statement, contents.idevid_statement_signature, attesting.key)
    require_certified(statement, signing, extra)
    if statement.signer != _primary_of_endorsement(attesting):
        raise TrustError("devid.hierarchy", "the IAK is no primary key of the endorsement hierarchy")


def _primary_of_endorsement(key: TpmPublic) -> bytes:
    """The qualified name of *key* right below the hierarchy (TPM 2.0 Part 1 §16.6)."""
    above = ENDORSEMENT.to_bytes(4, "big")
    return key.name[:2] + hashlib.new(key.name_hash, above + key.name).digest()
