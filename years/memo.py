"""What the same bytes come to is worked out once: signatures, paths and parsing, for the sake of speed.

A life shows the same few certificates tens of thousands of times. Everything here is a pure function of its
arguments; of the time, a path depends only by whether each certificate has begun and has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cache, lru_cache
from itertools import cycle
from typing import Any, Final
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.host import store
from holdfast.life import anchors
from holdfast.wire import authorities, certificates, chain, chain_explain, cms_reading, csr
from holdfast.wire.cmp import client as cmp_client
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Chain, Moment
from holdfast_sim import cmp_requests, enroll, scep_requests

KEPT: Final = 1024
"""Results of each function."""

RSA_BITS: Final = 2048
STOCK: Final = 12
"""RSA keys that there are; one comes again long after it was destroyed."""


def _paths(prove: Callable[[Chain, Chain, Moment, chain.Rule], Chain]) -> Callable[..., Chain]:
    """*prove* of :mod:`holdfast.wire.chain`, asked once for each answer that time can make different."""
    known: dict[Hashable, Chain | TrustError] = {}

    def remembered(presented: Chain, trusted: Chain, at: Moment, rule: chain.Rule) -> Chain:
        when = (at.now if at.trusted else at.floor).replace(microsecond=0)  # the verifier counts seconds
        ages = tuple(_age(each, when) for each in (*presented, *trusted))
        key = (presented, trusted, rule, at.trusted, ages)
        if key not in known:
            if len(known) >= KEPT:
                known.clear()
            try:
                known[key] = prove(presented, trusted, at, rule)
            except TrustError as error:
                known[key] = error
        found = known[key]
        if isinstance(found, TrustError):
            raise TrustError(found.code, found.detail, clause=found.clause)
        return found

    return remembered


def _age(certificate: x509.Certificate, when: datetime) -> tuple[bool, bool]:
    begin, end = _span(certificate)
    return begin <= when, end < when


@lru_cache(KEPT)
def _span(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


_PURE: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("load_der_x509_certificate", (x509,)),
    ("load", (certificates,)),
    ("is_self_signed", (authorities, anchors, cmp_client, cmp_requests)),
    ("signed_by", (chain_explain,)),
    ("check_bounds", (cms_reading,)),
    ("parse", (csr, enroll, scep_requests)),
    ("unseal", (store,)),
)
"""Functions of their arguments alone, and the modules that call them by that name."""


@cache
def _stock() -> tuple[rsa.RSAPrivateKey, ...]:
    return tuple(rsa.generate_private_key(65537, RSA_BITS) for _ in range(STOCK))


def _rsa_keys() -> Callable[[int, int], rsa.RSAPrivateKey]:
    """RSA keys from a stock, in turn: making one takes as long as a hundred steps."""
    turns, make = cycle(_stock()), rsa.generate_private_key

    def take(exponent: int, bits: int) -> rsa.RSAPrivateKey:
        return next(turns) if bits == RSA_BITS else make(exponent, bits)

    return take


@contextmanager
def remembering() -> Iterator[None]:
    """While this lasts, nothing pure is worked out twice."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(rsa, "generate_private_key", _rsa_keys()))
        stack.enter_context(patch.object(chain, "_prove", _paths(chain._prove)))
        for name, modules in _PURE:
            once = lru_cache(KEPT)(getattr(modules[0], name))
            for module in modules:
                stack.enter_context(patch.object(module, name, once))
        yield
