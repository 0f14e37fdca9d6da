"""Every check of the SCEP client, each against a server that breaks just that."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import Issued, Rejected
from holdfast.wire.scep.client import ScepProtocol
from holdfast_sim import scep
from sim.scep_actors import ScepBench, rsa_key

REMOTE, TRUST = RemoteProtocolError, TrustError

REPLIES: list[tuple[str, type[HoldfastError], str]] = [
    # whose reply it is
    ("device-signer", TRUST, "scep.signer"),
    ("foreign-signer", TRUST, "scep.signer"),
    ("tampered", TRUST, "cms.signature"),
    ("no-attributes", REMOTE, "scep.attributes"),
    # which request it answers
    ("wrong-nonce", TRUST, "scep.nonce"),
    ("no-nonce", TRUST, "scep.nonce"),
    ("wrong-transaction", TRUST, "scep.transaction"),
    ("wrong-type-message", REMOTE, "scep.message-type"),
    # what it says
    ("no-status", REMOTE, "scep.status"),
    ("no-fail-info", REMOTE, "scep.status"),
    ("no-envelope", REMOTE, "scep.status"),
    # the envelope
    ("wrong-recipient", REMOTE, "cms.recipient"),
    ("wrong-key", TRUST, "cms.decrypt"),
    ("garbage-envelope", REMOTE, "cms.syntax"),
    ("single-des", REMOTE, "scep.cipher"),
    # the certificate
    ("key-mismatch", TRUST, "scep.key-mismatch"),
    ("two-leaves", REMOTE, "scep.several-certificates"),
    ("no-certificates", REMOTE, "cms.no-certificates"),
    ("issued-ca", TRUST, "chain.is-ca"),
    ("foreign-ca", TRUST, "chain.untrusted"),
    ("issued-expired", TRUST, "chain.expired"),
    ("issued-future", TRUST, "chain.not-yet-valid"),
    ("wrong-usage", TRUST, "chain.usage"),
    # HTTP
    ("wrong-type", REMOTE, "scep.media-type"),
    ("empty", REMOTE, "scep.empty"),
    ("garbage", REMOTE, "cms.syntax"),
    ("cut-der", REMOTE, "cms.syntax"),
    ("status:code=404", REMOTE, "scep.unsupported"),
    ("status:code=500", REMOTE, "scep.unavailable"),
    ("status:code=403", REMOTE, "scep.refused"),
    ("redirect:to=/elsewhere", REMOTE, "scep.refused"),
]
"""Fault at PKIOperation, and what the client must say."""


@pytest.mark.parametrize(("fault", "kind", "code"), REPLIES)
def test_a_reply_that_lies(fault: str, kind: type[HoldfastError], code: str) -> None:
    bench = ScepBench.make(f"pkioperation:{fault}")
    with pytest.raises(kind) as caught:
        bench.enroll()
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert isinstance(ScepBench.make().enroll(), Issued), "the same exchange without the fault"


def test_a_reply_from_before_is_refused() -> None:
    bench = ScepBench.make("pkioperation:replayed:0:after=1")
    assert isinstance(bench.enroll(), Issued)
    with pytest.raises(TrustError, match=r"scep\.transaction"):
        bench.enroll(bench.request(rsa_key(1)))


def test_a_reply_from_before_to_the_same_transaction_is_refused() -> None:
    bench = ScepBench.make("pkioperation:replayed:0:after=1")
    request = bench.request()
    assert isinstance(bench.enroll(request), Issued)
    with pytest.raises(TrustError, match=r"scep\.nonce"):
        bench.enroll(request)


def test_a_renewal_keeps_its_names() -> None:
    bench = ScepBench.make("pkioperation:wrong-subject:0:after=1")
    first = bench.enroll()
    with pytest.raises(TrustError, match=r"scep\.names"):
        bench.enroll(bench.renewal(((first.chain[0],), rsa_key()), rsa_key(1)))


def test_single_des_says_what_to_do() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ScepBench.make("pkioperation:single-des").enroll()
    for part in (
        "single DES",
        "no switch allows it",
        "scepserver",
        "scepserver",
        "encryptionAlgorithmIdentifier: 2",
    ):
        assert part in caught.value.detail
    assert not caught.value.unsupported


def test_a_busy_server_is_asked_again_later() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ScepBench.make("pkioperation:status:code=503:retry-after=120").enroll()
    assert caught.value.busy
    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == 120


def test_no_scep_here_is_a_reason_for_the_next_rung() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ScepBench.make("getcacert:status:code=404").enroll()
    assert caught.value.unsupported


AUTHORITIES = [
    ("foreign-anchor", TRUST, "scep.ca-untrusted"),
    ("device-ra", TRUST, "scep.ra-unmarked"),
    ("garbage", REMOTE, "scep.ca-certificates"),
    ("empty", REMOTE, "scep.empty"),
    ("wrong-type", REMOTE, "scep.media-type"),
    ("cut-der", REMOTE, "scep.ca-certificates"),
]


@pytest.mark.parametrize(("fault", "kind", "code"), AUTHORITIES)
def test_certificates_that_are_not_the_servers(fault: str, kind: type[HoldfastError], code: str) -> None:
    bench = ScepBench.make(f"getcacert:{fault}")
    with pytest.raises(kind) as caught:
        bench.enroll()
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert bench.operations == ["GET GetCACaps", "GET GetCACert"], "nothing was encrypted for a stranger"


NEXT = [
    ("foreign-signer", TRUST, "scep.next-ca"),
    ("device-signer", TRUST, "scep.next-ca"),
    ("leaf-anchor", REMOTE, "scep.next-ca"),
    ("garbage", REMOTE, "cms.syntax"),
]


@pytest.mark.parametrize(("fault", "kind", "code"), NEXT)
def test_a_next_ca_that_is_not(fault: str, kind: type[HoldfastError], code: str) -> None:
    bench = ScepBench.make(f"getnextcacert:{fault}")
    scep.announce_next(bench.world)
    client: ScepProtocol = bench.protocol()
    with pytest.raises(kind) as caught:
        bench.run(client.discover(None, bench.now))
    assert (type(caught.value), caught.value.code) == (kind, code)


def test_a_refusal_brings_the_servers_reason() -> None:
    outcome: Any = ScepBench.make("pkioperation:refuse").enroll()
    assert outcome == Rejected("scep.badRequest", "refused by policy (a simulated fault)")


def test_capabilities_are_never_an_error() -> None:
    for fault in ("garbage", "empty", "status:code=500", "wrong-type"):
        assert isinstance(ScepBench.make(f"getcacaps:{fault}").enroll(), Issued), fault
