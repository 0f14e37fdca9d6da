"""Which faults of the servers a life must meet: by construction all of them, over the seeds.

Every second seed takes the next few faults of the catalogue, and a house in which they can be met. They wait
for it at its first meeting with the owner, or at one renewal after the other, until it has met each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from holdfast_sim.faults import ACME, BRSKI, CONNECTION, EST_GET, EVERYWHERE, KINDS, SCEP_MESSAGE

Town = Literal["main", "annex"]
"""Where a server is: the registrars are in one place, everything else in another, and each has faults and
outages of its own."""

Custom = Literal["", "approval", "confirm", "implicit"]
"""What a server does besides: a person looks at each request, CMC's certificates must be confirmed, CMP's
need not."""

CUSTOM_OF: Final[dict[str, Custom]] = {"no-implicit-echo": "implicit"}
"""Of the kinds of fault that can be met under one custom alone, whatever the scene's."""

SLICE: Final = 6
"""Faults for one life."""

FIRST_SLICE: Final = 3
"""The same, where a life has one chance: some messages are sent once at a first meeting."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the faults of some places are met: ``top`` is the ladder's first rung, ``town`` where the server
    is. ``first``: when a device meets its owner, and not later. ``custom`` is what the server does besides.
    ``told``: how the owner publishes what he revoked."""

    name: str
    places: tuple[str, ...]
    top: str = "est"
    town: Town = "main"
    first: bool = False
    custom: Custom = ""
    told: Literal["", "ocsp", "crl"] = ""


SCENES: Final = (
    Scene("EST, renewal", (*sorted(EST_GET), "simplereenroll", CONNECTION, EVERYWHERE)),
    Scene("EST, first", ("simpleenroll",), first=True),
    Scene("BRSKI", (*sorted(BRSKI), "masa-requestvoucher"), first=True),
    Scene("CMP, renewal", ("cmp", "cmp-kur", "cmp-certConf", "cmp-genm"), "cmp", "annex"),
    Scene("CMP, first", ("cmp-ir",), "cmp", "annex", first=True),
    Scene("CMP, waiting", ("cmp-pollReq",), "cmp", "annex", custom="approval"),
    Scene("SCEP", ("getcacaps", "getcacert", SCEP_MESSAGE), "scep", "annex"),
    Scene("CMC", ("cmc", "cmc-enroll"), "cmc", "annex"),
    Scene("CMC, waiting", ("cmc-query",), "cmc", "annex", custom="approval"),
    Scene("CMC, confirmed", ("cmc-confirm",), "cmc", "annex", custom="confirm"),
    Scene("ACME, first", ("acme-new-account",), "acme", "annex", first=True),
    Scene("ACME", tuple(sorted(ACME - {"acme-new-account"})), "acme", "annex"),
    Scene("own certificate, OCSP", ("ocsp",), town="annex", told="ocsp"),
    Scene("own certificate, CRL", ("crl",), town="annex", told="crl"),
)


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why faults of *kinds* at *places* meet no device of these lives; no kinds: none of them does."""

    places: tuple[str, ...]
    kinds: tuple[str, ...]
    why: str


_ISSUING: Final = ("cmp", "cmp-ir", "cmp-kur")
_CMP: Final = (*_ISSUING, "cmp-certConf", "cmp-pollReq", "cmp-genm")
_CMC: Final = ("cmc-enroll", "cmc-query")

EXCUSES: Final[tuple[Excuse, ...]] = (
    Excuse(("requestauditlog",), (), "the MASA's log is read by owners, not by devices"),
    Excuse(
        ("requestvoucher",),
        ("est-domain", "no-est-domain"),
        "the registrar of a life is its EST server: a maker's cloud that names another has tests of its own",
    ),
    Excuse(("getnextcacert",), (), "a device of these lives learns of a new CA by GetCACert"),
    Excuse(
        ("getcacaps",),
        ("foreign-anchor", "device-ra", "leaf-anchor", "foreign-signer", "device-signer"),
        "GetCACaps answers words, no certificates",
    ),
    Excuse(
        ("getcacert",),
        ("leaf-anchor", "foreign-signer", "device-signer"),
        "only in the answer to GetNextCACert",
    ),
    Excuse(("cmp-cr", "cmp-p10cr"), (), "a device enrolls by ir and renews by kur"),
    Excuse(("cmp-rr", "cmc-revoke", "acme-revoke-cert"), (), "a person revokes"),
    Excuse(("acme-account",), (), "an account is known by its key; nothing asks for it afterwards"),
    Excuse(
        ("acme-renewal-info",),
        (),
        "asked by configuration alone, and several times a day: ten years of that are left to other tests",
    ),
    Excuse(("acme-new-nonce", "acme-directory"), ("bad-nonce",), "what is asked by GET or HEAD has no nonce"),
    Excuse(("acme-key-change",), (), "an account keeps its key"),
    Excuse(("cmc-get-cert", "cmc-get-crl", "cmc-batch"), (), "asked for by no effect of the tables"),
    Excuse(("cmc-prove",), (), "only keys that decrypt are challenged, and those of the lives sign"),
    Excuse(
        _CMC,
        (
            "challenge-short",
            "challenge-other-key",
            "challenge-other-request",
            "challenge-witness",
            "challenge-sha1",
            "challenge-again",
        ),
        "only keys that decrypt are challenged, and those of the lives sign",
    ),
    Excuse(
        ("cmc", "cmc-enroll", "cmc-query", "cmc-confirm"),
        ("anchors-leaf", "anchors-missing", "anchors-sha1"),
        "only where a CA answers by itself and publishes its anchors; here an RA answers",
    ),
    Excuse(
        _CMC,
        ("no-certificates", "extra-chain", "reordered-chain"),
        "the certificates of a CMC answer are a set without a place for each",
    ),
    Excuse(
        ("cmc-enroll", "cmc-query", "cmc-confirm"),
        ("http-error",),
        "HTTP knows no kinds of CMC messages: the life meets it as cmc's",
    ),
    Excuse(("cmc-enroll",), ("forget",), "only a transaction that waits can be forgotten"),
    Excuse(
        _CMP,
        (
            "no-ciphertext",
            "wrong-ciphertext",
            "short-ciphertext",
            "huge-ciphertext",
            "other-kem",
            "unknown-kem",
        ),
        "only a CA whose key is for encapsulation (KEM) makes a ciphertext",
    ),
    Excuse(
        _CMP,
        ("signature-instead", "mac-bomb", "mac-weak", "mac-sha1", "wrong-secret"),
        "the messages of the lives are signed: no secret is shared with the CA",
    ),
    Excuse(_CMP, ("two-statuses",), "only in the answer to a revocation"),
    Excuse(
        ("cmp", "cmp-ir", "cmp-kur", "cmp-certConf", "cmp-genm"),
        ("two-polls",),
        "only in the answer to a poll, where the life meets it as cmp-pollReq's",
    ),
    Excuse(
        _CMP,
        ("foreign-root", "foreign-link", "unlinked-root", "wrong-back-link"),
        "only in the answer about a new root, which is asked for in the days of its change alone",
    ),
    Excuse(
        ("cmp-ir", "cmp-kur", "cmp-certConf", "cmp-pollReq"),
        ("leaf-anchor", "many-certificates", "wrong-info"),
        "only in the answer to a general message, where the life meets it as cmp-genm's",
    ),
    Excuse(
        ("cmp-ir", "cmp-kur"),
        ("extra-chain", "reordered-chain", "two-leaves", "no-certificates"),
        "a CertRepMessage has a field for one certificate, no bag of them",
    ),
)


def excuse_of(where: str, kind: str) -> str:
    """The reason; "" for a fault that must be met, or of which nothing is said."""
    for excuse in EXCUSES:
        if where in excuse.places and (not excuse.kinds or kind in excuse.kinds):
            return excuse.why
    return ""


Meeting = tuple[str, str]
"""A place and a kind."""


def _meetings(scene: Scene) -> list[Meeting]:
    return [(w, k) for w in scene.places for k in sorted(KINDS[w]) if not excuse_of(w, k)]


def _slices() -> list[tuple[Scene, tuple[Meeting, ...]]]:
    """The catalogue, in pieces whose faults are as far apart in it as they can be: alike ones are met in
    other lives."""
    pieces = []
    for scene in SCENES:
        meetings = _meetings(scene)
        many = -(-len(meetings) // (FIRST_SLICE if scene.first else SLICE))
        pieces += [(scene, tuple(meetings[n::many])) for n in range(many)]
    return pieces


FAULTS: Final = tuple(meeting for scene in SCENES for meeting in _meetings(scene))
"""Every fault that lives must meet."""

EXCUSED: Final = tuple((w, k) for w in sorted(KINDS) for k in sorted(KINDS[w]) if excuse_of(w, k))
"""Every fault that they need not meet."""

_SLICES: Final = tuple(_slices())


def appointed(seed: int) -> tuple[Scene, tuple[Meeting, ...]] | None:
    """What the life *seed* must meet, or None: every second life is left to chance alone."""
    return _SLICES[seed // 2 % len(_SLICES)] if seed % 2 else None
