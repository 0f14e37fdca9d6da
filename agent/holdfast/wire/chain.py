"""Certificate path validation (RFC 5280 §6) at a given moment, for a given purpose.

One path for every caller: the verifier of ``cryptography`` builds and proves the path (signatures,
validity, path length, name constraints, unknown critical extensions), with an extension policy of ours
instead of its WebPKI profile, which device identities do not follow: they have no SAN, or a critical one with
a HardwareModuleName, they lack AKI, and they end in the year 9999. Ours are:

- **anchors**: any certificate that the caller names, self-signed or not, even the leaf itself (a pinned
  domain certificate). An anchor's own signature is not looked at; its validity and constraints are.
- **issuers**: basicConstraints CA, keyCertSign if keyUsage is there, usages as the rule wants them.
- **name constraints**: on DNS, IP and e-mail names, which the library applies. It does not apply any
  other kind, so an issuer that has one is refused.
- **time**: without a trusted clock the real time is only known to be at or after the floor. A path holds
  if there is such a time at which all of it is valid; the floor and each later notBefore are tried.
  So notBefore alone never refuses a path, and notAfter is compared with the floor (``model.Moment``).
- **the leaf**: :mod:`holdfast.wire.chain_rules`.

Known strictness of the library, kept: X.509 v3 only, names compare octet by octet, self-issued issuers
count for path length, critical policy extensions are refused. Revocation is not looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy

from holdfast.wire.algorithms import accepted_key, has_ml_dsa_key
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.chain_explain import explain
from holdfast.wire.chain_rules import Rule
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, Moment

__all__ = ["MAX_ANCHORS", "MAX_CHAIN", "MAX_ISSUERS", "Rule", "validate"]

MAX_CHAIN: Final = 20
MAX_ANCHORS: Final = 64
MAX_ISSUERS: Final = 8


def validate(chain: Chain, anchors: Chain, at: Moment, rule: Rule) -> Chain:
    """Prove that the first of *chain* leads to one of *anchors* at *at* and is fit for *rule*.

    The other certificates of *chain* may come in any order and include ones that are not needed. Returns
    the path, leaf first, anchor last. Raises :class:`TrustError` with a ``chain.`` or ``key.`` code.
    """
    if not chain:
        raise TrustError("chain.empty", "no certificate was given")
    if not anchors:
        raise TrustError("chain.untrusted", "there is no anchor to trust")
    if len(chain) > MAX_CHAIN or len(anchors) > MAX_ANCHORS:
        detail = f"{len(chain)} certificates, {len(anchors)} anchors; at most {MAX_CHAIN} and {MAX_ANCHORS}"
        raise TrustError("chain.too-long", detail)
    leaf = chain[0]
    try:
        if not (rule.ml_dsa and has_ml_dsa_key(leaf)):
            accepted_key(leaf)
    except RemoteProtocolError as error:
        raise TrustError("chain.syntax", error.detail) from error
    path = _prove(chain, anchors, at, rule)
    rule.check(leaf, is_anchor=len(path) == 1)
    return path


def _prove(chain: Chain, anchors: Chain, at: Moment, rule: Rule) -> Chain:
    failure: Exception | None = None
    try:
        store = verification.Store(list(anchors))
        builder = verification.PolicyBuilder().store(store).max_chain_depth(MAX_ISSUERS)
        builder = builder.extension_policies(ca_policy=_issuer_policy(rule), ee_policy=_leaf_policy())
        for moment in _moments(chain, anchors, at):
            try:
                verifier = builder.time(moment).build_client_verifier()
                return tuple(verifier.verify(chain[0], list(chain[1:])).chain)
            except verification.VerificationError as error:
                failure = error
    except LIBRARY_ERRORS as error:
        failure = error
    raise explain(chain, anchors, at, str(failure)) from failure


def _moments(chain: Chain, anchors: Chain, at: Moment) -> Iterator[datetime]:
    """Times to prove the path at; see the module's text on time."""
    if at.trusted:
        yield at.now.astimezone(UTC)
        return
    floor = at.floor.astimezone(UTC)
    yield floor
    begins = {each.not_valid_before_utc for each in (*chain, *anchors)}
    yield from sorted(begin for begin in begins if begin > floor)


def _leaf_policy() -> ExtensionPolicy:
    return ExtensionPolicy.permit_all()


def _issuer_policy(rule: Rule) -> ExtensionPolicy:
    def usages(_: Policy, __: x509.Certificate, value: x509.ExtendedKeyUsage | None) -> None:
        if not rule.permits_issuer(value):
            raise ValueError(f"an issuer whose extended key usage excludes a {rule.purpose}")

    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_ca)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
        .may_be_present(x509.NameConstraints, Criticality.AGNOSTIC, _known_constraints)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, usages)
    )


def _is_ca(_: Policy, __: x509.Certificate, value: x509.BasicConstraints) -> None:
    if not value.ca:  # the library of today asks this too, but does not promise to under a policy of ours
        raise ValueError("an issuer that is not a CA")


def _signs_certificates(_: Policy, __: x509.Certificate, value: x509.KeyUsage | None) -> None:
    if value is not None and not value.key_cert_sign:
        raise ValueError("an issuer whose key may not sign certificates")


def _known_constraints(_: Policy, __: x509.Certificate, value: x509.NameConstraints | None) -> None:
    if value is None:
        return
    for name in (*(value.permitted_subtrees or ()), *(value.excluded_subtrees or ())):
        if not isinstance(name, x509.DNSName | x509.IPAddress | x509.RFC822Name):
            raise ValueError(f"a name constraint on {type(name).__name__}, which cannot be applied")
