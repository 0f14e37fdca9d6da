"""OCSP answers and CRLs from strangers: whatever comes, only our own errors and never a false statement."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import wire_pki as pki
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.revocation import crl, ocsp
from wire.test_revocation_crl import CA as LIST_CA
from wire.test_revocation_crl import LEAF as LIST_LEAF
from wire.test_revocation_crl import List
from wire.test_revocation_ocsp import QUESTION, Answer

ANSWER, LIST = Answer().der(), List(revoked=(1, 2, 3)).der()


def mutated(original: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of a real one, with cuts, insertions and changes."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        data = bytearray(original)
        for _ in range(draw(st.integers(1, 6))):
            at = draw(st.integers(0, max(len(data) - 1, 0)))
            match draw(st.integers(0, 2)):
                case 0 if data:
                    data[at] = draw(st.integers(0, 255))
                case 1:
                    del data[at : at + draw(st.integers(1, 64))]
                case _:
                    data[at:at] = draw(st.binary(max_size=32))
        return bytes(data)

    return build()


@given(st.one_of(st.binary(max_size=600), mutated(ANSWER)))
def test_ocsp(der: bytes) -> None:
    try:
        assert not ocsp.judge(der, QUESTION, pki.TRUSTED).revoked
    except (RemoteProtocolError, TrustError):
        return


@given(st.one_of(st.binary(max_size=600), mutated(LIST)))
def test_crl(der: bytes) -> None:
    try:
        assert not crl.judge(der, LIST_LEAF, LIST_CA.certificate, pki.TRUSTED).revoked
    except (RemoteProtocolError, TrustError):
        return
