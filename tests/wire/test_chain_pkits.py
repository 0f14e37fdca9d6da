"""NIST PKITS (the 2011 issue, as ``cryptography_vectors`` carries it) through our path validation.

Left out, and why:

- §4.1.4-6 DSA: not an algorithm of this product;
- §4.2.4 a GeneralizedTime before 2050, §4.3.3-5, 10, 11 names that are equal only after case, space or
  string-type folding, §4.5 and §4.6.15-17 self-issued issuers: the library is stricter than RFC 5280;
- §4.4, §4.7.4-5, §4.14, §4.15 revocation and CRLs: not looked at by this module;
- §4.8-§4.12 certificate policies: no rule asks for one, and critical policy constraints are refused;
- §4.13 directoryName and URI constraints: refused because the library does not apply them (one of each is
  tested below to be refused although the subject would be permitted).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509

from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import TrustError
from holdfast.wire.model import ClockState, Moment

_CERTS = Path("x509") / "PKITS_data" / "certs"
_AT = datetime(2026, 11, 1, tzinfo=UTC)
_MOMENT = Moment(_AT, _AT, ClockState.TRUSTED)
_FOUR_DEEP = (
    "pathLenConstraint6CACert pathLenConstraint6subCA4Cert pathLenConstraint6subsubCA41Cert"
    " pathLenConstraint6subsubsubCA41XCert"
)


def load(name: str) -> x509.Certificate:
    with cryptography_vectors.open_vector_file(str(_CERTS / f"{name}.crt"), "rb") as file:
        return x509.load_der_x509_certificate(file.read())


@pytest.mark.parametrize(
    "path",
    [
        "GoodCACert ValidCertificatePathTest1EE",
        "GoodCACert Validpre2000UTCnotBeforeDateTest3EE",
        "GoodCACert ValidGeneralizedTimenotAfterDateTest8EE",
        "UIDCACert ValidNameUIDsTest6EE",
        "RFC3280MandatoryAttributeTypesCACert ValidRFC3280MandatoryAttributeTypesTest7EE",
        "RFC3280OptionalAttributeTypesCACert ValidRFC3280OptionalAttributeTypesTest8EE",
        "UTF8StringEncodedNamesCACert ValidUTF8StringEncodedNamesTest9EE",
        "basicConstraintsNotCriticalCACert ValidbasicConstraintsNotCriticalTest4EE",
        "pathLenConstraint0CACert ValidpathLenConstraintTest7EE",
        f"{_FOUR_DEEP} ValidpathLenConstraintTest13EE",
        "keyUsageNotCriticalCACert ValidkeyUsageNotCriticalTest3EE",
        "nameConstraintsDNS1CACert ValidDNSnameConstraintsTest30EE",
        "nameConstraintsDNS2CACert ValidDNSnameConstraintsTest32EE",
        "nameConstraintsRFC822CA1Cert ValidRFC822nameConstraintsTest21EE",
        "nameConstraintsRFC822CA2Cert ValidRFC822nameConstraintsTest23EE",
        "nameConstraintsRFC822CA3Cert ValidRFC822nameConstraintsTest25EE",
        "ValidUnknownNotCriticalCertificateExtensionTest1EE",
    ],
)
def test_valid(path: str) -> None:
    *issuers, leaf = map(load, path.split())
    anchor = load("TrustAnchorRootCertificate")
    proven = validate((leaf, *issuers), (anchor,), _MOMENT, Rule.client())
    assert proven == (leaf, *reversed(issuers), anchor)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("BadSignedCACert InvalidCASignatureTest2EE", "chain.bad-signature"),
        ("GoodCACert InvalidEESignatureTest3EE", "chain.bad-signature"),
        ("BadnotBeforeDateCACert InvalidCAnotBeforeDateTest1EE", "chain.not-yet-valid"),
        ("GoodCACert InvalidEEnotBeforeDateTest2EE", "chain.not-yet-valid"),
        ("BadnotAfterDateCACert InvalidCAnotAfterDateTest5EE", "chain.expired"),
        ("GoodCACert InvalidEEnotAfterDateTest6EE", "chain.expired"),
        ("GoodCACert Invalidpre2000UTCEEnotAfterDateTest7EE", "chain.expired"),
        ("GoodCACert InvalidNameChainingTest1EE", "chain.untrusted"),
        ("NameOrderingCACert InvalidNameChainingOrderTest2EE", "chain.untrusted"),
        ("MissingbasicConstraintsCACert InvalidMissingbasicConstraintsTest1EE", "chain.untrusted"),
        ("basicConstraintsCriticalcAFalseCACert InvalidcAFalseTest2EE", "chain.untrusted"),
        ("basicConstraintsNotCriticalcAFalseCACert InvalidcAFalseTest3EE", "chain.untrusted"),
        (
            "pathLenConstraint0CACert pathLenConstraint0subCACert InvalidpathLenConstraintTest5EE",
            "chain.untrusted",
        ),
        (
            "pathLenConstraint6CACert pathLenConstraint6subCA0Cert pathLenConstraint6subsubCA00Cert"
            " InvalidpathLenConstraintTest9EE",
            "chain.untrusted",
        ),
        (
            "pathLenConstraint6CACert pathLenConstraint6subCA1Cert pathLenConstraint6subsubCA11Cert"
            " pathLenConstraint6subsubsubCA11XCert InvalidpathLenConstraintTest11EE",
            "chain.untrusted",
        ),
        (
            "pathLenConstraint0CACert ValidpathLenConstraintTest8EE",
            "chain.is-ca",
        ),  # valid path, CA as a client
        (
            "keyUsageCriticalkeyCertSignFalseCACert InvalidkeyUsageCriticalkeyCertSignFalseTest1EE",
            "chain.untrusted",
        ),
        (
            "keyUsageNotCriticalkeyCertSignFalseCACert InvalidkeyUsageNotCriticalkeyCertSignFalseTest2EE",
            "chain.untrusted",
        ),
        ("nameConstraintsDNS1CACert InvalidDNSnameConstraintsTest31EE", "chain.untrusted"),
        ("nameConstraintsDNS2CACert InvalidDNSnameConstraintsTest33EE", "chain.untrusted"),
        ("nameConstraintsDNS1CACert InvalidDNSnameConstraintsTest38EE", "chain.untrusted"),
        ("nameConstraintsRFC822CA1Cert InvalidRFC822nameConstraintsTest22EE", "chain.untrusted"),
        ("nameConstraintsRFC822CA2Cert InvalidRFC822nameConstraintsTest24EE", "chain.untrusted"),
        ("nameConstraintsRFC822CA3Cert InvalidRFC822nameConstraintsTest26EE", "chain.untrusted"),
        ("nameConstraintsDN1CACert ValidDNnameConstraintsTest1EE", "chain.untrusted"),
        ("nameConstraintsURI1CACert ValidURInameConstraintsTest34EE", "chain.untrusted"),
        ("InvalidUnknownCriticalCertificateExtensionTest2EE", "chain.untrusted"),
    ],
)
def test_invalid(path: str, code: str) -> None:
    *issuers, leaf = map(load, path.split())
    with pytest.raises(TrustError) as caught:
        validate((leaf, *issuers), (load("TrustAnchorRootCertificate"),), _MOMENT, Rule.client())
    assert caught.value.code == code
