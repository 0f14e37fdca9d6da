"""TCG-CSR-IDEVID: a real switch's request, and each way of being wrong."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.tpm import ek_profile
from holdfast.wire.tpm.public import parse_public
from holdfast.wire.tpm.tcg_csr import (
    IdevidContents,
    build_contents,
    build_request,
    parse_contents,
    parse_request,
    verify_request,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "tcg"
SIGNED = (VECTORS / "attestz-csr-contents.bin").read_bytes()
SIGNATURE = (VECTORS / "attestz-csr-signature.bin").read_bytes()
WHOLE = build_request(SIGNED, SIGNATURE)


def test_request_of_a_real_switch() -> None:
    request = parse_request(WHOLE)
    found = request.contents
    assert (found.model, found.serial) == (b"DCS-7001-SUP-L", b"JPN2517P064")
    verify_request(request, parse_public(found.idevid))
    maker = ek_profile.read(x509.load_der_x509_certificate(found.ek_certificate))
    assert maker == ek_profile.ChipMaker("id:53544D20", "ST33HTPHAHD8", "id:00010102")


def test_we_write_what_it_wrote_but_for_its_padding() -> None:
    ours = build_contents(parse_contents(SIGNED), "sha384")
    assert ours[60:-9] == SIGNED[60:-9]
    assert len(ours) == len(SIGNED)
    assert parse_contents(ours) == parse_contents(SIGNED)


def test_octet_changed_after_signing_is_refused() -> None:
    spoiled = build_contents(replace(parse_contents(SIGNED), serial=b"JPN2517P065"), "sha384")
    request = parse_request(build_request(spoiled, SIGNATURE))
    with pytest.raises(TrustError, match=r"attest\.signature"):
        verify_request(request, parse_public(request.contents.idevid))


def test_unsigned_request_is_refused() -> None:
    request = parse_request(build_request(SIGNED, b""))
    with pytest.raises(TrustError, match="not signed"):
        verify_request(request, parse_public(request.contents.idevid))


def test_signature_in_der_is_read_too() -> None:
    r, s = SIGNATURE[6:54], SIGNATURE[56:104]
    der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    request = parse_request(build_request(SIGNED, der))
    verify_request(request, parse_public(request.contents.idevid))
    spoiled = replace(request, signed=request.signed[:-1] + b"\0")
    with pytest.raises(TrustError, match=r"signature\.invalid"):
        verify_request(spoiled, parse_public(request.contents.idevid))


def test_tpm2b_around_areas_is_taken_off() -> None:
    found = parse_contents(SIGNED)
    wrapped = replace(
        found, iak=len(found.iak).to_bytes(2, "big") + found.iak, idevid=b"\0\xa8" + found.idevid
    )
    assert parse_contents(build_contents(wrapped)) == found


def _rehashed(data: bytes) -> bytes:
    return data[:12] + hashlib.sha384(data[60:]).digest() + data[60:]


WRONG = {
    "tcgcsr.version": b"\x00\x00\x02\x00" + SIGNED[4:],
    "tcgcsr.digest": SIGNED[:7] + b"\x04" + SIGNED[8:],
    "tcgcsr.hash": SIGNED[:-1] + b"\0",
    "tcgcsr.syntax": _rehashed(SIGNED + b"\0"),
}


@pytest.mark.parametrize("code", WRONG)
def test_wrong_contents_are_refused(code: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_contents(WRONG[code])
    assert caught.value.code == code


@pytest.mark.parametrize("cut", [0, 3, 11, 59, 100, 400, len(SIGNED) - 1])
def test_cut_contents_are_refused(cut: int) -> None:
    data = SIGNED[:cut]
    with pytest.raises(RemoteProtocolError, match="tcgcsr"):
        parse_contents(_rehashed(data) if cut > 60 else data)


def test_whole_has_its_own_version_and_end() -> None:
    with pytest.raises(RemoteProtocolError, match=r"tcgcsr\.version"):
        parse_request(b"\0" + WHOLE[1:])
    with pytest.raises(RemoteProtocolError, match=r"tcgcsr\.syntax"):
        parse_request(WHOLE + b"\0")
    with pytest.raises(RemoteProtocolError, match=r"tcgcsr\.syntax"):
        parse_request(WHOLE + bytes(70_000))


@given(st.binary(max_size=400), st.sampled_from(["sha256", "sha384", "sha512"]))
def test_what_is_written_is_read(blob: bytes, digest: str) -> None:
    contents = IdevidContents(b"M", blob, blob, b"i", b"d", b"s", b"t", ca_data=blob)
    assert parse_contents(build_contents(contents, digest)) == contents
    assert len(build_contents(contents, digest)) % 16 == 0


@given(st.data())
def test_nothing_else_comes_out(data: st.DataObject) -> None:
    whole = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = parse_request(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
        verify_request(request, parse_public(request.contents.idevid))
    except HoldfastError:
        pass
