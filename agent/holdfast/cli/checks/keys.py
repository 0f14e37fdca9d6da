"""Each identity's key is there, works, and is the one that its certificate names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, UnmetError, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.keys.api import Key
from holdfast.wire.errors import KeyStoreError


def look(patient: Patient) -> Iterator[Finding]:
    """Loads each key by its reference and compares its public half with the certificate's."""
    if patient.store == "tpm" and patient.tpm.srk_name is None and patient.parents:
        raise UnmetError("tpm-srk")  # loading would make a new one
    holding = [i for i in patient.record.identities if i.credential.chain and i.credential.key]
    if not holding:
        yield Finding(Verdict.SKIPPED, "no identity has a key and a certificate yet")
    for entry in holding:
        ref = entry.credential.key
        seen = f"loaded {ref} and compared its public half with the certificate's"
        try:
            key = patient.keys.load(ref)
        except KeyStoreError as error:
            yield Finding(
                Verdict.FAIL, f"{error.detail} ({error.code})", advice(error.code), seen, entry.name
            )
            continue
        certificate = x509.load_der_x509_certificate(entry.credential.chain[0])
        if same_key(key, certificate):
            yield Finding(Verdict.OK, f"{ref} is the key of its certificate", "", seen, entry.name)
        else:
            said = f"{ref} is not the key of its certificate"
            yield Finding(
                Verdict.FAIL, said, f"Get a new pair: holdfast renew {entry.name}", seen, entry.name
            )


def same_key(key: Key, certificate: x509.Certificate) -> bool:
    """Whether *certificate* is for *key*."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.signer().public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)


CHECK: Final = Check("keys", "each identity's key is there and fits its certificate", look)
