"""ASN.1 of the CSR attributes: RFC 8951 §3.5 and the templates of RFC 9908 §3.4 and appendix A.

Types only. Values that the RFC leaves open stay encoded, so that unknown ones pass through unread.
"""

# asn1crypto has no type stubs, so every class here has a base that mypy knows nothing about.
# mypy: disable-error-code="misc"

from __future__ import annotations

from typing import ClassVar

from asn1crypto import core, parser


def split(contents: bytes) -> list[bytes]:
    """The encodings that stand one after the other in *contents*. Raises ValueError."""
    found: list[bytes] = []
    while contents:
        header, value, trailer = parser.parse(contents)[3:]
        size = len(header) + len(value) + len(trailer)
        found.append(contents[:size])
        contents = contents[size:]
    return found


def members(der: bytes) -> list[bytes]:
    """The encodings of the members of one SEQUENCE OF, whatever they are. Raises ValueError."""
    class_, constructed, tag, _, contents, _ = parser.parse(der, strict=True)
    if (class_, constructed, tag) != (0, 1, 16):
        raise ValueError("not a SEQUENCE")
    return split(contents)


def sequence(encodings: list[bytes]) -> bytes:
    """A SEQUENCE of what is already encoded."""
    return bytes(parser.emit(0, 1, 16, b"".join(encodings)))


class EncodedSet(core.SetOf):
    """SET OF ANY, whose members :func:`split` gives from its contents."""

    _child_spec = core.Any


class Attribute(core.Sequence):
    _fields: ClassVar = [("type", core.ObjectIdentifier), ("values", EncodedSet)]


class Attributes(core.SetOf):
    _child_spec = Attribute


class AttrOrOid(core.Choice):
    _alternatives: ClassVar = [("oid", core.ObjectIdentifier), ("attribute", Attribute)]


class CsrAttrs(core.SequenceOf):
    _child_spec = AttrOrOid


class Extension(core.Sequence):
    """Extension and ExtensionTemplate in one: the template may lack the value."""

    _fields: ClassVar = [
        ("extn_id", core.ObjectIdentifier),
        ("critical", core.Boolean, {"default": False}),
        ("extn_value", core.OctetString, {"optional": True}),
    ]


class Extensions(core.SequenceOf):
    _child_spec = Extension


class SingleAttributeTemplate(core.Sequence):
    _fields: ClassVar = [("type", core.ObjectIdentifier), ("value", core.Any, {"optional": True})]


class RdnTemplate(core.SetOf):
    _child_spec = SingleAttributeTemplate


class NameTemplate(core.SequenceOf):
    _child_spec = RdnTemplate


class Algorithm(core.Sequence):
    _fields: ClassVar = [("algorithm", core.ObjectIdentifier), ("parameters", core.Any, {"optional": True})]


class KeyTemplate(core.Sequence):
    _fields: ClassVar = [
        ("algorithm", Algorithm),
        ("subject_public_key", core.OctetBitString, {"optional": True}),
    ]


class CsrInfoTemplate(core.Sequence):
    """CertificationRequestInfoTemplate. Its attributes are mandatory; their absence is tolerated."""

    _fields: ClassVar = [
        ("version", core.Integer),
        ("subject", NameTemplate, {"optional": True}),
        ("subject_pk_info", KeyTemplate, {"implicit": 0, "optional": True}),
        ("attributes", Attributes, {"implicit": 1, "optional": True}),
    ]
