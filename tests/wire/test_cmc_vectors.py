"""CMC messages that others made: ours must read them, and say where they break the standard."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.wire import cms, cms_reading, crmf, csr, der
from holdfast.wire.algorithms import accepted_key
from holdfast.wire.cmc import answer, proofs, requests
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.answer import Judge, Reply
from holdfast.wire.cmc.controls import (
    read_encrypted_pop,
    read_get_cert,
    read_integer,
    read_octets,
    read_revoke_request,
    read_text,
)
from holdfast.wire.cmc.messages import Crmf, Pkcs10, PkiData, read_data
from holdfast.wire.cmc.settings import Legacy
from holdfast.wire.cmc.vocabulary import FailInfo, Status
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import ClockState, Moment
from holdfast.wire.revocation.reason import Reason

VECTORS = Path(__file__).parents[1] / "vectors" / "cmc"
MADE = datetime(2026, 11, 24, 19, tzinfo=UTC)
NOW = Moment(MADE, MADE, ClockState.TRUSTED)
AUTHORITY = x509.load_pem_x509_certificate((VECTORS / "dogtag-ca.pem").read_bytes())
SECRET, NAME = b"nine-bean-rows", "gateway-7"


def vector(name: str) -> bytes:
    return (VECTORS / f"{name}.der").read_bytes()


def content(name: str) -> bytes:
    """The PKIData in a message, whose signature is not looked at."""
    found = cms_reading.signed_data(vector(name), limit=1 << 18)
    assert found.content_type == words.PKI_DATA
    assert found.content is not None
    return found.content


def judged(name: str) -> Reply:
    """A response, believed for the signature of Dogtag's CA."""
    return answer.read(vector(f"dogtag-{name}-response"), Judge((AUTHORITY,)), NOW, limit=1 << 18)


def renumbered(data: bytes, oid: str, number: int) -> bytes:
    """*data* with the control *oid* under another number, which nothing in the message depends on."""
    head = der.oid(oid)
    at = data.index(head)
    assert data[at - 3 : at - 1] == b"\x02\x01"
    return data[: at - 1] + bytes((number,)) + data[at:]


@pytest.mark.parametrize(
    "name",
    [
        "rfc6402-microsoft-request",
        "dogtag-tcr-agent-request",
        "dogtag-tcr-agent-ec-request",
        "dogtag-controls-request",
        "dogtag-revoke-request",
    ],
)
def test_a_request_is_read_and_written_again(name: str) -> None:
    data = read_data(content(name))

    assert data.encode() == content(name)
    for request in data.requests:
        assert isinstance(request, Pkcs10)
        assert x509.load_der_x509_csr(request.csr).public_key()


@pytest.mark.parametrize("name", ["tcr-agent", "tcr-agent-ec", "controls", "revoke"])
def test_a_signature_of_a_request(name: str) -> None:
    opened = cms.open_signed(vector(f"dogtag-{name}-request"), candidates=(AUTHORITY,))

    assert opened.content_type == words.PKI_DATA
    opened.signer.verify_directly_issued_by(AUTHORITY)


def test_controls() -> None:
    data = read_data(content("dogtag-controls-request"))
    returned, nonce = data.control(words.DATA_RETURN), data.control(words.SENDER_NONCE)
    transaction = data.control(words.TRANSACTION_ID)
    assert returned is not None
    assert nonce is not None
    assert transaction is not None

    assert read_octets(returned) == b"returned"
    assert read_integer(transaction) == int.from_bytes(b"1234567", "big")  # its digits, taken as octets
    reply = judged("controls")
    assert answer.check(reply, read_integer(transaction), read_octets(nonce), b"returned")
    assert [c.serial_number for c in reply.certificates if c.issuer == AUTHORITY.subject][1:] == [3]


def test_dogtags_client_names_an_issuer_without_its_tag() -> None:
    """GetCert has a GeneralName (§6.9): directoryName is tagged [4]. Its server takes it as it comes."""
    control = read_data(content("dogtag-controls-request")).control(words.GET_CERT)
    assert control is not None

    with pytest.raises(RemoteProtocolError, match="tag 0x30 where 0xa4") as caught:
        read_get_cert(control.value)
    assert caught.value.code == "cmc.syntax"


def test_a_revocation() -> None:
    (control,) = (c for c in read_data(content("dogtag-revoke-request")).controls if c.number == 2)
    asked = read_revoke_request(control.value)

    assert asked.certificate.serial == 7
    assert asked.reason is Reason.SUPERSEDED
    assert asked.comment == "out of use"
    assert asked.invalid_since is not None
    assert asked.invalid_since.date() == MADE.date()
    assert [s.status for s in judged("revoke").statuses] == [Status.SUCCESS]


@pytest.mark.parametrize("name", ["crm-agent-request", "crm-none-request", "tcr-secret-request"])
def test_dogtags_client_gives_one_number_twice(name: str) -> None:
    """Refused, since a status could mean either part. Its server takes them."""
    with pytest.raises(RemoteProtocolError, match="not all different") as caught:
        read_data(content(f"dogtag-{name}"))

    assert caught.value.code == "cmc.body-part"


def unfolded() -> PkiData:
    """The request under a shared secret, with the one number changed that stands twice."""
    return read_data(renumbered(content("dogtag-tcr-secret-request"), words.POP_LINK_RANDOM, 9))


def test_an_identity_proof_of_another_make() -> None:
    """IdentityProofV2 with a name (RFC 5272 §6.2.1, §6.2.3): computed by Dogtag, found right by us."""
    data = unfolded()
    proof, named = data.control(words.IDENTITY_PROOF_V2), data.control(words.IDENTIFICATION)
    assert proof is not None
    assert named is not None
    assert read_text(named) == NAME
    witness = proofs.read_witness(proof.value)

    proofs.check(witness, proofs.SharedSecret(SECRET, NAME).material, data.covered)
    with pytest.raises(TrustError):
        proofs.check(witness, SECRET, data.covered)
    assert proofs.prove(SECRET + NAME.encode(), data.covered).witness == witness.witness


def test_a_pop_link_of_another_make() -> None:
    """PopLinkWitnessV2, an attribute of the PKCS#10. Dogtag hashes the name with the secret here, too; the
    standard says so of the identity proof alone (RFC 5272 §6.2.3, §6.3.1.1)."""
    data = unfolded()
    random = data.control(words.POP_LINK_RANDOM)
    link = requests.link_of(data.requests[0])
    assert random is not None
    assert link is not None
    assert link.oid == words.POP_LINK_WITNESS_V2

    witness = proofs.read_witness(link.value)
    proofs.check(witness, SECRET + NAME.encode(), read_octets(random))
    with pytest.raises(TrustError):
        proofs.check(witness, SECRET, read_octets(random))


def test_a_signature_by_the_requested_key() -> None:
    """The signer is named by the key identifier that the PKCS#10 asks for (§3.2)."""
    (request,) = unfolded().requests
    assert isinstance(request, Pkcs10)
    asked = csr.parse(request.csr)
    identifier = asked.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    seen = []

    opened = cms.open_by_key(
        vector("dogtag-tcr-secret-request"), lambda _, named: seen.append(named) or accepted_key(asked)
    )

    assert seen == [identifier]
    assert opened == content("dogtag-tcr-secret-request")


def test_a_request_in_crmf() -> None:
    data = read_data(renumbered(content("dogtag-crm-agent-request"), words.SENDER_NONCE, 9))
    (request,) = data.requests
    assert isinstance(request, Crmf)
    (found,) = crmf.read_requests(der.sequence(request.message))

    asked = crmf.as_csr(found.template)
    assert isinstance(asked.public_key(), ec.EllipticCurvePublicKey)
    assert found.proof is not None


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("tcr-agent", "UID=gw7,CN=gateway rsa"),
        ("tcr-agent-ec", "UID=gw7,CN=gateway ec"),
        ("crm-agent", "CN=gateway crmf,UID=gw9"),
    ],
)
def test_a_success(name: str, subject: str) -> None:
    reply = judged(name)

    assert reply.signer == AUTHORITY
    assert [s.status for s in reply.statuses] == [Status.SUCCESS]
    assert [c.subject.rfc4514_string() for c in reply.certificates] == [subject]
    reply.certificates[0].verify_directly_issued_by(AUTHORITY)


def test_a_challenge_that_is_no_mac() -> None:
    """Dogtag names AES where an HMAC belongs (§6.7): understood as far as it is read, and never answered."""
    reply = judged("crm-none")
    (status,) = reply.statuses
    assert (status.status, status.fail) == (Status.POP_REQUIRED, FailInfo.POP_REQUIRED)
    assert reply.response is not None
    control = reply.response.control(words.ENCRYPTED_POP)
    assert control is not None
    challenge = read_encrypted_pop(control.value)

    with pytest.raises(TrustError) as caught:
        proofs.compute(challenge.mac, bytes(16), b"")
    assert caught.value.code == "cmc.algorithm"


def test_a_failure_that_repeats_nothing() -> None:
    """Signed, but of no transaction: its words are told, and it is not believed to be an answer to ours."""
    reply = judged("revoke-secret")
    assert [(s.fail, s.text) for s in reply.statuses] == [(FailInfo.BAD_REQUEST, "Invalid Credential.")]

    with pytest.raises(RemoteProtocolError, match="Invalid Credential") as caught:
        answer.check(reply, 1, b"nonce", b"")
    assert (caught.value.code, caught.value.busy) == ("cmc.unmatched", True)


def test_a_bare_pki_data() -> None:
    """Dogtag's client sends a PKIData without SignedData around it for a revocation by secret alone."""
    with pytest.raises(RemoteProtocolError) as caught:
        cms_reading.signed_data(vector("dogtag-revoke-secret-request"), limit=1 << 18)

    assert caught.value.code == "cms.syntax"


def test_sha1_is_behind_the_switch() -> None:
    """The sample of RFC 6402's time is signed with SHA-1 by its own key."""
    found = cms_reading.signed_data(vector("rfc6402-microsoft-request"), limit=1 << 18)

    assert [s.digest for s in found.signers] == ["sha1"]
    assert Legacy.SHA1 not in Judge((AUTHORITY,)).legacy
