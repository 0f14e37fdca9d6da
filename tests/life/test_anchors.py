"""A domain changes its roots: what is taken, on whose word, and what never comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.life.anchors import OVERLAP, Trust, adopt, fingerprint
from holdfast.life.record import Anchor, Provenance, Retired
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Chain, ClockState, Moment

SERVER = "https://est.example"
OLD, NEW, NEWEST = (pki.ca(name) for name in ("Root", "Root G2", "Root G3"))


def link(new: pki.Identity, old: pki.Identity, **options: Any) -> pki.Identity:
    """The key of *new* certified by *old*: NewWithOld."""
    return pki.ca(new.certificate.subject, old, key=new.key, **options)


NEW_WITH_OLD = link(NEW, OLD)
OLD_WITH_NEW = link(OLD, NEW)


def der(identity: pki.Identity) -> bytes:
    return identity.certificate.public_bytes(Encoding.DER)


def certificates(*identities: pki.Identity) -> Chain:
    return tuple(i.certificate for i in identities)


def at(days: float, state: ClockState = ClockState.TRUSTED) -> Moment:
    now = pki.NOW + timedelta(days=days)
    return Moment(now, pki.NOW - timedelta(days=60), state)


def offer(
    held: tuple[Anchor, ...],
    *offered: pki.Identity,
    now: Moment = pki.TRUSTED,
    source: str = SERVER,
    retired: tuple[Retired, ...] = (),
    needs: pki.Identity | None = None,
) -> Trust:
    """What is trusted after an offer of a server that leads to *needs*, if that is given."""

    def serves(anchors: tuple[Anchor, ...]) -> None:
        if needs is not None and der(needs) not in {a.certificate for a in anchors}:
            raise TrustError("chain.untrusted")

    return adopt(held, certificates(*offered), serves, now, source=source, retired=retired)


HELD = offer((), OLD).anchors


def told(trust: Trust) -> dict[bytes, Provenance]:
    return {a.certificate: a.provenance for a in trust.anchors}


def test_a_root_that_the_old_one_signed_is_known_by_that_and_both_stand() -> None:
    trust = offer(HELD, NEW, OLD, NEW_WITH_OLD, OLD_WITH_NEW)
    assert told(trust) == {der(NEW): Provenance.ROLLOVER, der(OLD): Provenance.CACERTS}
    assert set(trust.intermediates) == {der(NEW_WITH_OLD), der(OLD_WITH_NEW)}
    assert trust.retired == ()


def test_a_chain_of_links_leads_over_several_changes() -> None:
    trust = offer(HELD, NEWEST, NEW, link(NEWEST, NEW), NEW_WITH_OLD)
    assert told(trust)[der(NEWEST)] is Provenance.ROLLOVER


def test_two_roots_of_one_name_are_told_apart_by_the_key_that_signed() -> None:
    old, new = pki.ca("Same"), pki.ca("Same")
    trust = offer(offer((), old).anchors, new, old, link(new, old), link(old, new))
    assert told(trust) == {der(new): Provenance.ROLLOVER, der(old): Provenance.CACERTS}


def test_a_root_without_a_link_has_the_word_of_the_channel_and_says_so() -> None:
    assert told(offer(HELD, NEW, OLD))[der(NEW)] is Provenance.CACERTS
    backwards = offer(HELD, NEW, OLD, OLD_WITH_NEW)
    assert told(backwards)[der(NEW)] is Provenance.CACERTS, "the new root's word for the old one is no link"


def test_a_link_that_has_ended_links_nothing() -> None:
    late = link(NEW, OLD, not_after=pki.NOW - timedelta(days=1))
    assert told(offer(HELD, NEW, OLD, late))[der(NEW)] is Provenance.CACERTS


@pytest.mark.parametrize("forger", [pki.ca("Root"), NEW], ids=["another root of that name", "the new root"])
def test_a_forged_link_is_a_lie(forger: pki.Identity) -> None:
    named = replace(forger, certificate=OLD.certificate)  # signs with its own key under our root's name
    with pytest.raises(TrustError, match=r"^anchors\.link"):
        offer(HELD, NEW, OLD, link(NEW, named))


def test_a_link_of_a_root_that_we_never_knew_is_no_lie() -> None:
    stranger = pki.ca("Stranger")
    assert told(offer(HELD, NEW, OLD, link(NEW, stranger)))[der(NEW)] is Provenance.CACERTS


# --- overlap and retirement --------------------------------------------------------------------------


def grown(days: float = 0, **options: Any) -> Trust:
    """Old and new held, and an offer that names the new one alone."""
    held = offer(HELD, NEW, OLD, NEW_WITH_OLD).anchors
    return offer(held, NEW, NEW_WITH_OLD, now=at(days), **options)


def test_the_old_root_stays_for_the_overlap_and_then_goes() -> None:
    missing = grown()
    assert {a.certificate: a.missing for a in missing.anchors} == {der(NEW): None, der(OLD): pki.NOW}
    kept = offer(missing.anchors, NEW, now=at(OVERLAP.days - 0.01))
    assert der(OLD) in told(kept)
    gone = offer(kept.anchors, NEW, now=at(OVERLAP.days))
    assert set(told(gone)) == {der(NEW)}
    assert gone.retired == (Retired(fingerprint(der(OLD)), pki.NOW + OVERLAP),)


def test_a_retired_root_never_comes_back_however_well_it_is_linked() -> None:
    retired = (Retired(fingerprint(der(OLD)), pki.NOW),)
    held = offer((), NEW).anchors
    trust = offer(held, NEW, OLD, OLD_WITH_NEW, retired=retired)
    assert set(told(trust)) == {der(NEW)}
    assert der(OLD_WITH_NEW) in trust.intermediates, "a link helps to build paths and is trusted by nobody"


def test_a_root_that_is_named_again_in_time_is_not_missing() -> None:
    again = offer(grown().anchors, NEW, OLD, now=at(20))
    assert all(a.missing is None for a in again.anchors)
    assert der(OLD) in told(offer(again.anchors, NEW, now=at(OVERLAP.days + 5)))


def test_a_root_that_the_server_still_needs_stays() -> None:
    kept = offer(grown().anchors, NEW, now=at(400), needs=OLD)
    assert der(OLD) in told(kept)
    assert kept.retired == ()


def test_one_ca_s_silence_says_nothing_of_another_ca_s_root() -> None:
    other = pki.ca("Other CA")
    held = offer(HELD, other, source="https://other.example").anchors
    for days in range(0, 400, 50):
        trust = offer(held, other, now=at(days), source="https://other.example")
        held = trust.anchors
        assert trust.retired == ()
    assert der(OLD) in {a.certificate for a in held}
    both = offer(held, OLD, other, now=at(400))
    silent = offer(both.anchors, OLD, now=at(401))
    assert {a.certificate: a.missing for a in silent.anchors} == {der(OLD): None, der(other): None}


@pytest.mark.parametrize("state", [ClockState.FLOOR_ONLY, ClockState.UNKNOWN])
def test_a_clock_that_nobody_set_retires_nothing(state: ClockState) -> None:
    held = offer(HELD, NEW, OLD).anchors
    unmissed = offer(held, NEW, now=at(9000, state))
    assert all(a.missing is None for a in unmissed.anchors)
    assert der(OLD) in told(offer(grown().anchors, NEW, now=at(9000, state)))


def test_provenance_and_date_of_an_anchor_stay() -> None:
    first = offer(HELD, NEW, OLD, NEW_WITH_OLD)
    later = offer(first.anchors, OLD, NEW, NEW_WITH_OLD, OLD_WITH_NEW, now=at(40))
    known: dict[bytes, tuple[Provenance, datetime]] = {
        a.certificate: (a.provenance, a.since) for a in first.anchors
    }
    assert {a.certificate: (a.provenance, a.since) for a in later.anchors} == known


def test_an_anchor_of_an_older_record_is_not_missed_before_somebody_named_it() -> None:
    bare = (Anchor(der(OLD), Provenance.CACERTS, pki.NOW),)
    trust = offer(bare, NEW, now=at(0))
    trust = offer(trust.anchors, NEW, now=at(500))
    assert der(OLD) in told(trust)


# --- the voucher's certificate -----------------------------------------------------------------------


def test_a_pinned_root_links_a_new_one_too() -> None:
    pinned = (Anchor(der(OLD), Provenance.VOUCHER, pki.NOW),)
    trust = offer(pinned, NEW, NEW_WITH_OLD, needs=OLD)
    assert told(trust) == {der(NEW): Provenance.ROLLOVER, der(OLD): Provenance.VOUCHER}
