"""What the CA wishes to see in a request: certReqTemplate (RFC 9810 §5.3.19.16, RFC 9483 §4.3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography import x509

from holdfast.wire import algorithm_oids, der
from holdfast.wire.cmp import oids
from holdfast.wire.cmp.message import reading
from holdfast.wire.crmf import Template, as_csr, read_template
from holdfast.wire.der import Cursor
from holdfast.wire.identified import Algorithm, Info, read_algorithm, read_infos
from holdfast.wire.model import CsrTemplate, KeyAlgorithm

MAX_WISHES: Final = 64
SUBJECT_ALT_NAME: Final = "2.5.29.17"
_TEXT: Final[Mapping[int, str]] = MappingProxyType(
    {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}
)
_CURVES: Final[Mapping[str, KeyAlgorithm]] = MappingProxyType(
    {algorithm_oids.P256: KeyAlgorithm.P256, algorithm_oids.P384: KeyAlgorithm.P384}
)
_SIZES: Final[Mapping[int, KeyAlgorithm]] = MappingProxyType(
    {2048: KeyAlgorithm.RSA2048, 3072: KeyAlgorithm.RSA3072}
)
_EMPTY_NAMES: Final = frozenset({b"\x81\x00", b"\x82\x00", b"\x86\x00", b"\x87\x00", b"\xa4\x02\x30\x00"})
# The library reads extensions only inside something larger, which needs some key.
_PUBLIC_KEY: Final = der.sequence(der.sequence(der.oid("1.3.101.112")), der.bits(bytes(32)))


def read_wishes(value: bytes) -> CsrTemplate:
    """The wishes in a certReqTemplate value. A public key in it is ignored, as RFC 9483 §4.3.3 says.

    Raises RemoteProtocolError ``cmp.syntax``.
    """
    if not value:
        return CsrTemplate()
    with reading("CertReqTemplateContent"):
        cursor = der.read_one(value)
        template = read_template(cursor)
        controls = read_infos(cursor) if cursor.more else ()
        cursor.close()
        key, unknown = _key(controls)
        extensions, fill = _extensions(template.extensions)
        subject = _subject(template.subject) if template.subject else None
        return CsrTemplate(
            key=key, subject=subject, extensions=extensions, fill_extensions=fill, unknown=unknown
        )


def _key(controls: tuple[Info, ...]) -> tuple[KeyAlgorithm | None, tuple[str, ...]]:
    """The first key that we can make; the controls that were not understood."""
    unknown: list[str] = []
    for control in controls:
        found: KeyAlgorithm | None = None
        if control.oid == oids.RSA_KEY_LEN:
            found = _SIZES.get(Cursor(control.value).integer())
        elif control.oid == oids.ALG_ID:
            algorithm = read_algorithm(Cursor(control.value))
            if algorithm.oid == algorithm_oids.EC and algorithm.parameters:
                found = _CURVES.get(Cursor(algorithm.parameters).oid())
        if found is not None:
            return found, tuple(unknown)
        unknown.append(control.oid)
    return None, tuple(unknown)


def _subject(name: bytes) -> tuple[tuple[str, str | None], ...]:
    wanted: list[tuple[str, str | None]] = []
    for rdn in der.read_one(name).each():
        for single in rdn.inside(der.SET).each():
            pair = single.inside()
            oid, tag = pair.oid(), pair.peek()
            if tag not in _TEXT:
                raise ValueError(f"subject attribute {oid} is no text")
            text = pair.take(tag).decode(_TEXT[tag])
            if text and not text.isprintable():
                raise ValueError(f"subject attribute {oid} is not printable")
            wanted.append((oid, text or None))
    if len(wanted) > MAX_WISHES:
        raise ValueError(f"{len(wanted)} subject attributes")
    return tuple(wanted)


def _extensions(
    encoded: bytes,
) -> tuple[tuple[x509.Extension[x509.ExtensionType], ...], tuple[str, ...]]:
    whole: list[bytes] = []
    fill: list[str] = []
    for each in der.read_one(encoded).each() if encoded else ():
        extension = each.any()
        inner = der.read_one(extension)
        oid = inner.oid()
        if inner.peek() == der.BOOLEAN:
            inner.any()
        value = inner.octets()
        inner.close()
        if not value or (oid == SUBJECT_ALT_NAME and _all_empty(value)):
            fill.append(oid)
        else:
            whole.append(extension)
    if len(whole) + len(fill) > MAX_WISHES:
        raise ValueError("too many extensions")
    return read_extensions(whole), tuple(fill)


def _all_empty(names: bytes) -> bool:
    return all(each.any() in _EMPTY_NAMES for each in der.read_one(names).each())


def read_extensions(encoded: list[bytes]) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """Extensions as ``cryptography`` has them. Raises RemoteProtocolError ``cmp.syntax``."""
    if not encoded:
        return ()
    return tuple(as_csr(Template(public_key=_PUBLIC_KEY, extensions=der.sequence(*encoded))).extensions)


def encode_wishes(wishes: CsrTemplate) -> bytes:
    """A certReqTemplate value that says *wishes*."""
    rdns = [
        der.tlv(der.SET, der.sequence(der.oid(oid), der.text(value or "")))
        for oid, value in wishes.subject or ()
    ]
    extensions = [
        der.sequence(
            der.oid(e.oid.dotted_string),
            *((der.tlv(der.BOOLEAN, b"\xff"),) if e.critical else ()),
            der.octets(e.value.public_bytes()),
        )
        for e in wishes.extensions
    ]
    extensions += [der.sequence(der.oid(oid), der.octets(b"")) for oid in wishes.fill_extensions]
    template = Template(
        subject=der.sequence(*rdns) if wishes.subject is not None else b"",
        extensions=der.sequence(*extensions) if extensions else b"",
    )
    controls = []
    for curve, algorithm in _CURVES.items():
        if wishes.key is algorithm:
            controls.append(Info(oids.ALG_ID, Algorithm(algorithm_oids.EC, der.oid(curve)).encode()))
    for size, algorithm in _SIZES.items():
        if wishes.key is algorithm:
            controls.append(Info(oids.RSA_KEY_LEN, der.integer(size)))
    spec = der.sequence(*(c.encode() for c in controls)) if controls else b""
    return der.sequence(template.encode(), spec)
