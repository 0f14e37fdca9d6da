"""``openssl cms`` reads and verifies every message that is made on either side, of every kind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.wire import cms_reading
from holdfast.wire.cmc import batch, services
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest
from holdfast.wire.cmc.settings import Form, Possession
from holdfast.wire.cmc.signer import Identity, Nobody
from holdfast.wire.revocation.reason import Reason
from holdfast_sim.cmc_desk import CmcPolicy
from sim.cmc_actors import Cmc
from sim.scep_actors import rsa_key
from tools import need


def enrolled(device: Cmc) -> None:
    device.issued()


def renewed(device: Cmc) -> None:
    device.issued(device.renewal(device.issued()))


def decrypted(device: Cmc) -> None:
    device.issued(device.request(rsa_key()))


def asked(device: Cmc) -> None:
    """Revocation by certificate and by secret, a certificate, a list, a batch."""
    issued, now = device.issued(), device.bench.time.moment()
    issuer, leaf = device.world.domain.issuing.certificate, issued.chain[0]
    wanted = RevokeRequest(CertificateId.of(leaf), Reason.SUPERSEDED, comment="no longer used")
    own = Identity(issued.chain, device.bench.key)
    device.run(services.revoke(device.conversation(own), wanted, now))
    device.run(services.revoke(device.conversation(Nobody()), wanted, now))
    device.run(services.certificate(device.conversation(), issuer, leaf.serial_number, now))
    device.run(services.revocation_list(device.conversation(), issuer, now))
    control, contents = batch.bundle([device.sent[0].body, device.sent[1].body])
    device.run(device.conversation().ask([control], now, contents=contents))


CASES: list[tuple[Callable[[], Cmc], Callable[[Cmc], None]]] = [
    (Cmc.make, renewed),
    (lambda: Cmc.make(form=Form.CRMF), renewed),
    (lambda: Cmc.make(secret=True, policy=CmcPolicy(polls=1)), renewed),
    (lambda: Cmc.make(secret=True, form=Form.CRMF), enrolled),
    (lambda: Cmc.make(policy=CmcPolicy(confirm=True, authority="ca", publish=True)), enrolled),
    (lambda: Cmc.make(policy=CmcPolicy(simple=True)), enrolled),
    (lambda: Cmc.make(possession=Possession.DECRYPTION), decrypted),
    (Cmc.make, asked),
]


@pytest.mark.parametrize(("make", "play"), CASES)
def test_every_message(make: Callable[[], Cmc], play: Callable[[Cmc], None], tmp_path: Path) -> None:
    openssl, device = need("openssl", "openssl"), make()
    play(device)
    anchors = (*device.world.domain.anchors, *device.world.manufacturer.anchors)
    (tmp_path / "anchors.pem").write_bytes(b"".join(map(pem, anchors)))
    (tmp_path / "holder.pem").write_bytes(pem(holder(device)))
    messages = [m.body for m in (*device.sent, *device.received)]
    assert len(messages) >= 2
    for message in messages:
        fields = cms_reading.signed_data(message, limit=1 << 20)
        (tmp_path / "message").write_bytes(message)
        command = [openssl, "cms", "-inform", "DER", "-in", "message", "-binary"]
        if not fields.signers:
            run([*command, "-cmsout", "-print", "-out", "printed"], tmp_path)
            assert "pkcs7-signedData" in (tmp_path / "printed").read_text()
            continue
        by_key = fields.signers[0].key_identifier is not None
        trust = ["-noverify", "-certfile", "holder.pem"] if by_key else ["-CAfile", "anchors.pem"]
        at = str(int(device.bench.time.now.timestamp()))
        trust += ["-purpose", "any", "-attime", at]
        run([*command, "-verify", *trust, "-out", "content"], tmp_path)
        assert (tmp_path / "content").read_bytes() == fields.content


def holder(device: Cmc) -> x509.Certificate:
    """A certificate for the key that signs before it has one: openssl looks for its identifier."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(device.bench.key.public_key())
    return pki.certificate("holder", device.bench.key, None, extensions=[(identifier, False)]).certificate


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def run(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
