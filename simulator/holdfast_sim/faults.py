"""Faults on demand: a declared list of misdeeds, each at a named place, a counted number of times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock

from holdfast.wire.errors import ConfigError

EVERYWHERE = "*"
EST_GET = frozenset({"cacerts", "csrattrs"})
EST_ENROLL = frozenset({"simpleenroll", "simplereenroll"})
BRSKI = frozenset({"requestvoucher", "voucher_status", "enrollstatus"})
MASA = frozenset({"masa-requestvoucher", "requestauditlog"})
SCEP_GET = frozenset({"getcacaps", "getcacert", "getnextcacert"})
SCEP_MESSAGE = "pkioperation"
CMP_REQUESTS = frozenset({"cmp-ir", "cmp-cr", "cmp-p10cr", "cmp-kur"})
CMP_OTHERS = frozenset({"cmp-genm", "cmp-rr", "cmp-certConf", "cmp-pollReq"})
CMP = "cmp"  # any CMP message
CMC_ENROLL = frozenset({"cmc-enroll", "cmc-query", "cmc-prove"})
CMC_OTHERS = frozenset({"cmc-confirm", "cmc-revoke", "cmc-get-cert", "cmc-get-crl", "cmc-batch"})
CMC = "cmc"  # any CMC message
ACME = frozenset(
    f"acme-{name}"
    for name in (
        "directory", "new-nonce", "new-account", "new-order", "revoke-cert", "key-change", "account",
        "order", "finalize", "authz", "challenge", "certificate", "renewal-info",
    )
)  # fmt: skip
STANDING = frozenset({"ocsp", "crl"})
ENDPOINTS = EST_GET | EST_ENROLL | BRSKI | MASA | SCEP_GET | {SCEP_MESSAGE, CMP, CMC} | ACME | STANDING

TRANSPORT_KINDS = frozenset(
    {
        "status",  # code=500; retry-after=SECONDS
        "redirect",  # to=URL or path; code=307; without `to` the request's own target: a loop
        "pending",  # 202; retry-after=SECONDS
        "pending-date",  # 202 with the HTTP-date form; retry-after=SECONDS
        "pending-no-retry-after",
        "wrong-type",  # type=text/html
        "no-type",
        "empty",  # the right headers around no body
        "garbage",  # bytes that are nothing; size=N
        "garbage-json",  # size=N
        "non-der",  # base64 around bytes that are no DER
        "pem",  # PEM armour around the body
        "unwrapped",  # base64 on one line
        "crlf",  # base64 lines that end in CRLF
        "wrong-encoding",  # Content-Transfer-Encoding: 8bit
        "cut-der",  # the body ends early and the framing agrees; keep=N
        "truncated",  # the connection ends in the middle of the body; keep=N
        "oversized",  # size=N bytes follow the body
        "endless",  # the same in chunks, so that no header tells
        "drop-before",  # the connection ends, nothing was processed
        "drop-after",  # the request was processed, the answer is lost
        "slow",  # seconds=S of silence
    }
)
VOUCHER_KINDS = frozenset(
    {
        "wrong-nonce",
        "nonceless",  # no nonce; expires-on in the future
        "expired",  # no nonce; expires-on has passed
        "nonce-and-expires",
        "no-freshness",  # neither nonce nor expires-on
        "wrong-serial",
        "no-serial",
        "wrong-aki",
        "wrong-pin",  # the certificate of another domain
        "no-pin",
        "garbage-pin",
        "future-created-on",
        "assertion",  # value=logged
        "est-domain",  # value=another EST server than the one that belongs there
        "no-est-domain",
        "unknown-leaf",  # harmless: must be ignored
        "id-data",  # harmless: eContentType id-data, as in every voucher seen in the wild
        "foreign-signer",  # signed under a root that nobody knows
        "idevid-signer",  # signed by an IDevID of the right root
        "tampered",  # one byte of the content was changed after signing
        "no-signed-attributes",
    }
)
ISSUE_KINDS = frozenset(
    {
        "key-mismatch",
        "extra-chain",  # leaf, issuing CA and root
        "reordered-chain",  # the same, in the order that DER forbids
        "two-leaves",
        "no-certificates",
        "issued-ca",
        "foreign-ca",
        "issued-expired",
        "issued-future",  # notBefore in a year
        "wrong-subject",
        "rollover",  # the domain changes its root just before it issues
        "wrong-usage",  # server authentication only
        "refuse",  # code=403
    }
)
CACERTS_KINDS = frozenset({"no-certificates", "foreign-anchor", "leaf-anchor"})
SCEP_AUTHORITY_KINDS = frozenset(
    {
        "foreign-anchor",  # the certificates of another domain
        "device-ra",  # a device of the domain in the place of the RA
        "leaf-anchor",  # GetNextCACert: no CA certificate in it
        "foreign-signer",
        "device-signer",
    }
)
SCEP_REPLY_KINDS = frozenset(
    {
        "wrong-nonce",
        "no-nonce",
        "wrong-transaction",
        "wrong-type-message",  # not a CertRep
        "no-status",
        "no-envelope",
        "no-fail-info",
        "no-attributes",
        "tampered",  # one attribute was changed after signing
        "replayed",  # the reply before this one
        "device-signer",  # signed by a device of the domain
        "foreign-signer",  # signed in the RA's name under another CA
        "wrong-recipient",  # encrypted for another device
        "wrong-key",  # encrypted for us, under a key that does not come out
        "garbage-envelope",
        "single-des",
        "forget",  # the transaction is not known any more
    }
)
CMP_KINDS = frozenset(
    {
        "wrong-version",
        "wrong-transaction",
        "wrong-nonce",
        "no-nonce",
        "first-nonce",  # harmless after a poll: the nonce of the first message is repeated
        "wrong-sender",
        "wrong-body",  # a genp, whatever was asked
        "unprotected",
        "unprotected-error",
        "tampered",  # one header field was changed after it was protected
        "foreign-signer",
        "device-signer",  # an end entity of the domain signs
        "other-signer",  # another authority of the domain signs
        "no-signer-certificate",
        "signature-instead",  # a signature where the request had a MAC
        "mac-instead",  # the other way about
        "wrong-secret",
        "mac-bomb",  # a thousand million iterations
        "mac-weak",  # one iteration
        "mac-sha1",
        "refuse",  # an error, notAuthorized
        "two-polls",
        "two-statuses",
        "wrong-info",  # genp about something else
        "no-ciphertext",
        "wrong-ciphertext",  # of another secret
        "short-ciphertext",
        "huge-ciphertext",
        "other-kem",
        "unknown-kem",
        "leaf-anchor",
        "many-certificates",
        "foreign-root",
        "foreign-link",
        "unlinked-root",
        "wrong-back-link",
    }
)
CMP_REQUEST_KINDS = frozenset(
    {
        "wrong-request-id",
        "two-responses",
        "no-certificate",
        "central-key",
        "ca-pubs",  # the root of another domain
        "no-implicit-echo",
    }
)
CMC_KINDS = frozenset(
    {
        "wrong-nonce",
        "no-nonce",
        "two-nonces",
        "wrong-transaction",
        "no-transaction",
        "wrong-data",
        "no-data",
        "wrong-content",  # a PKIData where the answer belongs
        "doubled-part",  # all body parts have one number
        "unsigned",
        "tampered",
        "replayed",  # the answer before this one
        "foreign-signer",
        "device-signer",  # an end entity of the domain signs
        "simple-instead",  # certificates alone, whatever was asked
        "http-error",  # HTTP 400 around whatever is said
        "old-status",  # the status of RFC 2797 alone
        "contradiction",  # success, for a reason
        "other-part",  # a status about something that was not asked
        "refuse",  # badRequest
        "bad-identity",
        "try-later",
        "no-support",
        "extended",  # a reason of nobody's standard
        "keeps-waiting",  # pending, whatever was asked
        "no-certificate",
        "anchors-leaf",
        "anchors-missing",  # hashes without their certificates
        "anchors-sha1",
        "old-time",  # signed nine days ago
        "no-time",
    }
)
CMC_ENROLL_KINDS = frozenset(
    {
        "two-leaves",
        "no-token",
        "forget",  # the transaction is not known any more
        "challenge-short",
        "challenge-other-key",
        "challenge-other-request",
        "challenge-witness",
        "challenge-sha1",
        "challenge-again",  # what was proved must be proved again
    }
)
ACME_KINDS = frozenset({"bad-nonce"})
ACME_ISSUE_KINDS = frozenset({"key-mismatch", "foreign-ca", "other-names"})
OCSP_KINDS = frozenset(
    {
        "wrong-nonce",
        "no-nonce",  # harmless: cached answers have none
        "stale",
        "future",
        "other-certificate",
        "unknown",
        "try-later",
        "foreign-signer",
        "tampered",
        "says-revoked",
        "delegate",  # harmless: a responder with a certificate for just this
        "delegate-no-usage",
        "delegate-foreign",
        "delegate-expired",
    }
)
CRL_KINDS = frozenset({"stale", "future", "other-issuer", "foreign-signer", "delta", "for-cas"})
CONNECTION = "registrar"
CONNECTION_KINDS = frozenset({"swap-certificate"})  # after=N connections another certificate is shown

KINDS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(ENDPOINTS | {EVERYWHERE}, TRANSPORT_KINDS),
    **dict.fromkeys(EST_ENROLL, TRANSPORT_KINDS | ISSUE_KINDS),
    **dict.fromkeys(ACME, TRANSPORT_KINDS | ACME_KINDS),
    "acme-order": TRANSPORT_KINDS | ACME_KINDS | {"stuck"},
    "acme-finalize": TRANSPORT_KINDS | ACME_KINDS | ACME_ISSUE_KINDS,
    "acme-renewal-info": TRANSPORT_KINDS | {"window-now"},
    "cacerts": TRANSPORT_KINDS | CACERTS_KINDS,
    "requestvoucher": TRANSPORT_KINDS | VOUCHER_KINDS,
    **dict.fromkeys(SCEP_GET, TRANSPORT_KINDS | SCEP_AUTHORITY_KINDS),
    SCEP_MESSAGE: TRANSPORT_KINDS | SCEP_REPLY_KINDS | ISSUE_KINDS,
    **dict.fromkeys(CMP_OTHERS, CMP_KINDS),
    **dict.fromkeys(CMP_REQUESTS, CMP_KINDS | CMP_REQUEST_KINDS | ISSUE_KINDS),
    CMP: TRANSPORT_KINDS | CMP_KINDS | CMP_REQUEST_KINDS,
    **dict.fromkeys(CMC_OTHERS, CMC_KINDS),
    **dict.fromkeys(CMC_ENROLL, CMC_KINDS | CMC_ENROLL_KINDS | ISSUE_KINDS),
    CMC: TRANSPORT_KINDS | CMC_KINDS,
    "ocsp": TRANSPORT_KINDS | OCSP_KINDS,
    "crl": TRANSPORT_KINDS | CRL_KINDS,
    CONNECTION: CONNECTION_KINDS,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One misdeed. ``times`` 0 means for ever. The argument ``after=N`` spares the first N occasions."""

    where: str
    kind: str
    times: int = 0
    args: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.where not in KINDS:
            raise ConfigError("sim.fault", f"no place {self.where!r}; places: {', '.join(sorted(KINDS))}")
        if self.kind not in KINDS[self.where]:
            kinds = ", ".join(sorted(KINDS[self.where]))
            raise ConfigError("sim.fault", f"no fault {self.kind!r} at {self.where}; there: {kinds}")
        if self.times < 0 or self.number("after", 0) < 0:
            raise ConfigError("sim.fault", f"{self}: counts are not negative")

    def __str__(self) -> str:
        return f"{self.where}:{self.kind}"

    def text(self, name: str, default: str) -> str:
        return next((value for key, value in self.args if key == name), default)

    def number(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        try:
            return int(value)
        except ValueError as error:
            raise ConfigError("sim.fault", f"{self}: {name}={value} is not a whole number") from error

    @classmethod
    def parse(cls, text: str) -> Fault:
        """From ``where:kind[:times][:name=value]...``. Raises ConfigError."""
        where, *rest = text.split(":")
        if not rest:
            raise ConfigError("sim.fault", f"{text!r} is not where:kind[:times][:name=value]...")
        kind, *options = rest
        times = int(options.pop(0)) if options and options[0].isascii() and options[0].isdigit() else 0
        args = []
        joined = ":".join(options)  # a value may hold colons: to=https://...
        for option in _split_options(joined):
            name, equals, value = option.partition("=")
            if not equals:
                raise ConfigError("sim.fault", f"{option!r} in {text!r} is not name=value")
            args.append((name, value))
        return cls(where, kind, times, tuple(args))

    @classmethod
    def from_mapping(cls, value: object) -> Fault:
        """From JSON or YAML: ``{where, kind, times?, args?: {name: value}}``. Raises ConfigError."""
        if not isinstance(value, Mapping):
            raise ConfigError("sim.fault", "a fault is a mapping with where and kind")
        where, kind, times = value.get("where"), value.get("kind"), value.get("times", 0)
        args = value.get("args", {})
        if not isinstance(where, str) or not isinstance(kind, str):
            raise ConfigError("sim.fault", "where and kind are texts")
        if not isinstance(times, int) or isinstance(times, bool) or not isinstance(args, Mapping):
            raise ConfigError("sim.fault", f"{where}:{kind}: times is a whole number and args a mapping")
        if unknown := set(value) - {"where", "kind", "times", "args"}:
            raise ConfigError("sim.fault", f"{where}:{kind}: unknown keys {sorted(map(str, unknown))}")
        return cls(where, kind, times, tuple((str(name), str(arg)) for name, arg in args.items()))


def load(value: object) -> tuple[Fault, ...]:
    """A list of faults as JSON or YAML gives it: texts or mappings. Raises ConfigError."""
    if not isinstance(value, list):
        raise ConfigError("sim.fault", "faults are a list")
    return tuple(Fault.parse(item) if isinstance(item, str) else Fault.from_mapping(item) for item in value)


class FaultPlan:
    """The declared faults together with how often each one has had its occasion. Safe across threads."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)
        self._occasions: Counter[int] = Counter()
        self._lock = Lock()
        self.applied: list[Fault] = []

    @property
    def declared(self) -> tuple[Fault, ...]:
        return tuple(self._faults)

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self._occasions.clear()

    def take(self, where: str, *kinds: str) -> Fault | None:
        """The first fault of *kinds* that is due at *where*. Asking is the occasion: it counts."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.where not in (where, EVERYWHERE) or fault.kind not in kinds:
                    continue
                occasion = self._occasions[index] - fault.number("after", 0)
                self._occasions[index] += 1
                if occasion >= 0 and (fault.times == 0 or occasion < fault.times):
                    self.applied.append(fault)
                    return fault
        return None

    def due(self, where: str, kind: str) -> bool:
        """Whether a fault of *kind* happens at *where* now. Counts like :meth:`take`."""
        return self.take(where, kind) is not None


def _split_options(text: str) -> list[str]:
    """Split at the colons that start a new ``name=``."""
    options: list[str] = []
    for piece in text.split(":") if text else []:
        head = piece.partition("=")[0]
        if options and not (head and "=" in piece and head.replace("-", "").isalnum()):
            options[-1] += ":" + piece
        else:
            options.append(piece)
    return options
