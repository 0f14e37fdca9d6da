"""CSR attributes: what a server wishes to see in a CSR (RFC 7030 §4.5.2, RFC 8951 §3.5, RFC 9908).

Reading is lenient: what is not understood is kept as an OID in ``CsrTemplate.unknown``. Choices where
the RFCs leave room:

- A server that sends the RFC 9908 template is read by that template alone (RFC 9908 §4).
- A key type without size or curve means the smallest key of the product that fits.
- An extension that is given in part (a SAN with one empty entry) appears twice: its given part in
  ``extensions``, its OID in ``fill_extensions``, which then means: add the device's own values.
- RDNs of several attributes are flattened; a subject keeps the order of its attributes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

from asn1crypto import core, keys

from holdfast.wire import oids
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.est import asn1
from holdfast.wire.est.extensions import given_part, read_extension, san_to_fill
from holdfast.wire.model import CsrTemplate, KeyAlgorithm

Style = Literal["9908", "7030"]

LIMIT: Final = 65536
"""Octets of DER that are read at most."""

MAX_ELEMENTS: Final = 64
_CLAUSE: Final = "RFC 9908 §3"

EC_KEY: Final = "1.2.840.10045.2.1"
RSA_KEY: Final = "1.2.840.113549.1.1.1"
_CURVES: Final = {"1.2.840.10045.3.1.7": KeyAlgorithm.P256, "1.3.132.0.34": KeyAlgorithm.P384}
_CURVE_OIDS: Final = {algorithm: oid for oid, algorithm in _CURVES.items()}
_RSA_BITS: Final = {2048: KeyAlgorithm.RSA2048, 3072: KeyAlgorithm.RSA3072}
_RSA_SIZES: Final = {algorithm: bits for bits, algorithm in _RSA_BITS.items()}

_EC_SIGNATURES: Final = {
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}
_RSA_SIGNATURES: Final = {
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
}
_HASHES: Final = {
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
_DIGEST_OF: Final = {o: name for t in (_EC_SIGNATURES, _RSA_SIGNATURES, _HASHES) for name, o in t.items()}

_EXTENSION_ARC: Final = "2.5.29."
_PRINTABLE: Final = frozenset({"2.5.4.5", "2.5.4.6", "2.5.4.46"})  # serialNumber, country, dnQualifier
_IA5: Final = frozenset({"0.9.2342.19200300.100.1.25", "1.2.840.113549.1.9.1"})  # DC, emailAddress


def parse_csrattrs(der: bytes, *, limit: int = LIMIT) -> CsrTemplate:
    """The wishes in a DER CsrAttrs. Raises RemoteProtocolError ``est.csrattrs`` if it cannot be read."""
    if len(der) > limit:
        raise _broken(f"{len(der)} octets, limit {limit}")
    try:
        elements = list(asn1.CsrAttrs.load(der, strict=True))
        if len(elements) > MAX_ELEMENTS:
            raise _broken(f"{len(elements)} elements, limit {MAX_ELEMENTS}")
        attributes = [e.chosen for e in elements if e.name == "attribute"]
        templates = [a for a in attributes if a["type"].dotted == oids.CSR_INFO_TEMPLATE]
        if templates:
            return _from_template(templates)
        template = CsrTemplate()
        for element in elements:
            if element.name == "oid":
                template = _with_oid(template, element.chosen.dotted)
            else:
                template = _with_attribute(template, element.chosen)
        return template
    except (ValueError, TypeError, KeyError, OverflowError) as e:
        raise _broken(f"not CsrAttrs: {type(e).__name__}: {e}") from e


def _broken(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError("est.csrattrs", detail[:300], clause=_CLAUSE)


def _with_oid(template: CsrTemplate, oid: str) -> CsrTemplate:
    if oid == oids.CHALLENGE_PASSWORD:
        return replace(template, link_tls_unique=True)
    if oid in _DIGEST_OF:
        return replace(template, digest=template.digest or _DIGEST_OF[oid])
    if oid in (EC_KEY, RSA_KEY):
        return _with_key(template, oid, None)
    if oid.startswith(_EXTENSION_ARC):
        return replace(template, fill_extensions=_joined(template.fill_extensions, oid))
    return replace(template, unknown=_joined(template.unknown, oid))


def _with_attribute(template: CsrTemplate, attribute: Any) -> CsrTemplate:
    oid, values = attribute["type"].dotted, asn1.split(attribute["values"].contents)
    if oid == oids.CHALLENGE_PASSWORD:
        return replace(template, link_tls_unique=True)
    if oid == EC_KEY:
        return _with_key(template, oid, core.ObjectIdentifier.load(values[0]).dotted if values else None)
    if oid == RSA_KEY:
        return _with_key(template, oid, core.Integer.load(values[0]).native if values else None)
    if oid in (oids.EXTENSION_REQUEST, oids.EXTENSION_REQUEST_TEMPLATE):
        for value in values:
            template = _with_extensions(template, value)
        return template
    return replace(template, unknown=_joined(template.unknown, oid))


def _with_key(template: CsrTemplate, key_type: str, parameter: str | int | None) -> CsrTemplate:
    """The first key that the product can make counts (RFC 9908 §3.2 allows only one)."""
    if parameter is None:
        key: KeyAlgorithm | None = KeyAlgorithm.P256 if key_type == EC_KEY else KeyAlgorithm.RSA2048
    elif isinstance(parameter, str):
        key = _CURVES.get(parameter)
    else:
        key = _RSA_BITS.get(parameter)
    if key is None:
        refused = parameter if isinstance(parameter, str) else key_type
        return replace(template, unknown=_joined(template.unknown, refused))
    return replace(template, key=template.key or key)


def _with_extensions(template: CsrTemplate, encoded: bytes) -> CsrTemplate:
    if encoded[:1] == b"\x06":  # the shape of RFC 7030's own, later corrected, example
        return _with_oid(template, core.ObjectIdentifier.load(encoded).dotted)
    members = asn1.members(encoded)
    if members and members[0][:1] == b"\x06":  # RFC 9908 §3.4 says one ExtensionTemplate
        members = [encoded]
    if len(members) > MAX_ELEMENTS:
        raise _broken(f"{len(members)} extensions, limit {MAX_ELEMENTS}")
    for member in members:
        template = _with_extension(template, asn1.Extension.load(member, strict=True))
    return template


def _with_extension(template: CsrTemplate, extension: Any) -> CsrTemplate:
    oid, critical = extension["extn_id"].dotted, bool(extension["critical"].native)
    if any(e.oid.dotted_string == oid for e in template.extensions):
        raise _broken(f"extension {oid} twice")
    value = None if extension["extn_value"].native is None else extension["extn_value"].native
    given, fill = given_part(oid, value)
    if given is not None:
        known = (*template.extensions, read_extension(oid, critical=critical, value=given))
        template = replace(template, extensions=known)
    return replace(template, fill_extensions=_joined(template.fill_extensions, oid)) if fill else template


def _from_template(attributes: list[Any]) -> CsrTemplate:
    values = [v for attribute in attributes for v in asn1.split(attribute["values"].contents)]
    if len(values) != 1:
        raise _broken(f"{len(values)} templates, expected one")
    info = asn1.CsrInfoTemplate.load(values[0], strict=True)
    if info["version"].native != 0:
        raise _broken("template version is not v1")
    template = CsrTemplate()
    if not isinstance(info["subject"], core.Void):
        template = _with_subject(template, info["subject"])
    if not isinstance(info["subject_pk_info"], core.Void):
        template = _with_public_key(template, info["subject_pk_info"])
    if not isinstance(info["attributes"], core.Void):
        inner = list(info["attributes"])
        kinds = [a["type"].dotted for a in inner]
        if kinds.count(oids.EXTENSION_REQUEST) + kinds.count(oids.EXTENSION_REQUEST_TEMPLATE) > 1:
            raise _broken("template asks for extensions twice")
        for attribute in inner:
            template = _with_attribute(template, attribute)
    return template


def _with_subject(template: CsrTemplate, name: Any) -> CsrTemplate:
    wanted: list[tuple[str, str | None]] = []
    for rdn in name:
        for single in rdn:
            if isinstance(single["value"], core.Void):
                wanted.append((single["type"].dotted, None))
                continue
            value = core.load(single["value"].dump(), strict=True)
            text = value.native if isinstance(value, core.AbstractString) else None
            if not isinstance(text, str) or not text.isprintable():
                raise _broken(f"subject attribute {single['type'].dotted} is not text")
            wanted.append((single["type"].dotted, text or None))
    if len(wanted) > MAX_ELEMENTS:
        raise _broken(f"{len(wanted)} subject attributes, limit {MAX_ELEMENTS}")
    return replace(template, subject=tuple(wanted))


def _with_public_key(template: CsrTemplate, info: Any) -> CsrTemplate:
    key_type = info["algorithm"]["algorithm"].dotted
    if key_type == EC_KEY:
        parameters = info["algorithm"]["parameters"]
        absent = isinstance(parameters, core.Void)
        curve = None if absent else core.ObjectIdentifier.load(parameters.dump(), strict=True).dotted
        return _with_key(template, key_type, curve)
    if key_type == RSA_KEY:
        placeholder = info["subject_public_key"].native
        if placeholder is None:
            return _with_key(template, key_type, None)
        modulus = keys.RSAPublicKey.load(placeholder, strict=True)["modulus"].native
        return _with_key(template, key_type, modulus.bit_length())
    return replace(template, unknown=_joined(template.unknown, key_type))


def _joined(found: tuple[str, ...], oid: str) -> tuple[str, ...]:
    return found if oid in found else (*found, oid)


def encode_csrattrs(template: CsrTemplate, style: Style = "9908") -> bytes:
    """DER CsrAttrs that says *template*: the RFC 9908 template, or the flat list of RFC 7030.

    Raises LocalProtocolError ``est.csrattrs-style`` for a wish that the style has no words for: a
    template has none for the digest, the flat list none for the subject. ``unknown`` is sent as bare
    OIDs in the flat list and as attributes without a value in the template.
    """
    if template == CsrTemplate():
        return b"\x30\x00"
    items = _template_items(template) if style == "9908" else _flat_items(template)
    return bytes(asn1.CsrAttrs(items).dump())


def _template_items(template: CsrTemplate) -> list[Any]:
    if template.digest is not None:
        raise LocalProtocolError("est.csrattrs-style", "a template cannot ask for a digest", clause=_CLAUSE)
    inner = [asn1.Attribute({"type": o, "values": []}) for o in template.unknown]
    if template.link_tls_unique:
        inner.append(asn1.Attribute({"type": oids.CHALLENGE_PASSWORD, "values": []}))
    if template.fill_extensions:
        inner.append(_attribute(oids.EXTENSION_REQUEST_TEMPLATE, _extensions(template)))
    elif template.extensions:
        inner.append(_attribute(oids.EXTENSION_REQUEST, _extensions(template)))
    info: dict[str, Any] = {"version": 0, "attributes": inner}
    if template.subject is not None:
        info["subject"] = [[_single(oid, value)] for oid, value in template.subject]
    if template.key is not None:
        info["subject_pk_info"] = _key_template(template.key)
    return [_choice("attribute", _attribute(oids.CSR_INFO_TEMPLATE, asn1.CsrInfoTemplate(info)))]


def _flat_items(template: CsrTemplate) -> list[Any]:
    if template.subject is not None:
        raise LocalProtocolError("est.csrattrs-style", "RFC 7030 has no words for a subject", clause=_CLAUSE)
    bare: list[str] = [oids.CHALLENGE_PASSWORD] if template.link_tls_unique else []
    items: list[Any] = []
    if template.key is not None:
        parameter = _key_parameter(template.key)
        items.append(_choice("attribute", _attribute(parameter[0], parameter[1])))
    if template.extensions:
        given = _extensions(replace(template, fill_extensions=()))
        items.append(_choice("attribute", _attribute(oids.EXTENSION_REQUEST, given)))
    bare += template.fill_extensions
    if template.digest is not None:
        table = _RSA_SIGNATURES if template.key in _RSA_SIZES else _EC_SIGNATURES
        bare.append(table[template.digest])
    return items + [_choice("oid", core.ObjectIdentifier(o)) for o in (*bare, *template.unknown)]


def _choice(name: str, value: Any) -> Any:
    return asn1.AttrOrOid(name=name, value=value)


def _attribute(oid: str, value: Any) -> Any:
    return asn1.Attribute({"type": oid, "values": [core.Any.load(value.dump())]})


def _extensions(template: CsrTemplate) -> Any:
    entries: list[dict[str, Any]] = []
    for e in template.extensions:
        oid, value = e.oid.dotted_string, e.value.public_bytes()
        if oid in template.fill_extensions:
            value = san_to_fill(oid, value)
        entries.append({"extn_id": oid, "critical": e.critical, "extn_value": value})
    given = {e.oid.dotted_string for e in template.extensions}
    entries += [{"extn_id": o} for o in template.fill_extensions if o not in given]
    return asn1.Extensions(entries)


def _single(oid: str, value: str | None) -> dict[str, Any]:
    if value is None:
        return {"type": oid}
    kind = core.PrintableString if oid in _PRINTABLE else core.IA5String if oid in _IA5 else core.UTF8String
    return {"type": oid, "value": core.Any.load(kind(value).dump())}


def _key_parameter(key: KeyAlgorithm) -> tuple[str, Any]:
    if key in _CURVE_OIDS:
        return EC_KEY, core.ObjectIdentifier(_CURVE_OIDS[key])
    return RSA_KEY, core.Integer(_RSA_SIZES[key])


def _key_template(key: KeyAlgorithm) -> dict[str, Any]:
    key_type, parameter = _key_parameter(key)
    if key_type == EC_KEY:
        return {"algorithm": {"algorithm": EC_KEY, "parameters": core.Any.load(parameter.dump())}}
    # RFC 9908 §3.4: the size of an RSA key is told by a placeholder of that size.
    placeholder = keys.RSAPublicKey({"modulus": (1 << (_RSA_SIZES[key] - 1)) + 1, "public_exponent": 65537})
    null = core.Any.load(core.Null().dump())
    return {
        "algorithm": {"algorithm": RSA_KEY, "parameters": null},
        "subject_public_key": placeholder.dump(),
    }
