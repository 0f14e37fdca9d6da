"""From a key in hardware to what a CA believes: evidence in the forms that protocols carry."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.keys.api import Attesting, Key
from holdfast.wire.acme.attest import TpmStatement, qualifying_data, write_object
from holdfast.wire.acme.challenges import Attest
from holdfast.wire.model import Chain, KeyAlgorithm
from holdfast.wire.tpm import akca

COSE: Final = {KeyAlgorithm.P256: -7, KeyAlgorithm.RSA2048: -257}
"""COSE's names for what our attestation keys sign with."""


def attest_with(attesting: Attesting, key: Key, chain: Chain) -> Attest:
    """How device-attest-01 is met for *key*: *chain* certifies the attestation key, leaf first."""

    def attest(key_authorization: bytes) -> bytes:
        evidence = attesting.certify(key, qualifying_data(key_authorization.decode()))
        ders = tuple(each.public_bytes(Encoding.DER) for each in chain)
        return write_object(
            TpmStatement(
                COSE[attesting.algorithm], ders, evidence.signature, evidence.statement, evidence.public
            )
        )

    return attest


def application(attesting: Attesting, identifier: str = "") -> akca.Application:
    """What is shown to an attestation CA."""
    endorsement = attesting.endorsement_key()
    chain = () if endorsement.certificate is None else akca.split(endorsement.certificate)
    return akca.Application(
        ek_public=endorsement.public,
        ak_public=attesting.attestation_public(),
        ek_chain=(*chain, *akca.split(endorsement.issuers)),
        identifier=identifier,
    )
