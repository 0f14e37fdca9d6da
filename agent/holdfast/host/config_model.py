"""The configuration as frozen records. Defaults are those of ``config.schema.json``; a test compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from holdfast.host.clock import Policy
from holdfast.host.config_secrets import read_secret, secret_from
from holdfast.host.config_tokens import TokenSettings
from holdfast.keys.open import Pkcs11Settings, TpmSettings
from holdfast.life.search import Source
from holdfast.wire.acme.account import ExternalAccount
from holdfast.wire.cmc.proofs import SharedSecret
from holdfast.wire.cmc.settings import Form, Possession
from holdfast.wire.cmc.settings import Legacy as CmcLegacy
from holdfast.wire.cmc.site import DEFAULT_PATH as FULLCMC
from holdfast.wire.errors import ConfigError
from holdfast.wire.http import HttpCredentials
from holdfast.wire.model import KeyAlgorithm
from holdfast.wire.scep.settings import DEFAULT_PATH, Decryption, Legacy

DEFAULT_NV_INDEX: Final = 0x01C90200  # the IDevID template of TCG, "TPM 2.0 Keys for Device Identity"
_SUBJECT: Final[Mapping[str, str]] = MappingProxyType({"common-name": "{serial}"})


@dataclass(frozen=True, slots=True)
class KeySettings:
    """The home of keys: the ``token`` if there is one, else the TPM that the other fields describe.
    ``identities`` are the names that keys are made for."""

    tcti: str = "device:/dev/tpmrm0"
    srk: int = 0x81000001
    storage: Literal["blob", "persistent"] = "blob"
    auth_file: Path | None = None
    owner_auth_file: Path | None = None
    identities: tuple[str, ...] = ("ldevid",)
    token: TokenSettings | None = None

    def store_settings(self, directory: Path) -> TpmSettings | Pkcs11Settings:
        """What opens the store; *directory* is for what it keeps on disk."""
        return self.token.store_settings(directory) if self.token else self.tpm_settings(directory)

    def tpm_settings(self, directory: Path) -> TpmSettings:
        """What opens the TPM store, with wrapped keys in *directory*."""
        return TpmSettings(
            tcti=self.tcti,
            directory=directory,
            srk=self.srk,
            storage=self.storage,
            identities=self.identities,
            auth=secret_from(self.auth_file),
            owner_auth=secret_from(self.owner_auth_file),
        )


@dataclass(frozen=True, slots=True)
class IdevidSettings:
    """The maker's identity: on the ``token`` if there is one, else in the TPM at ``handle``.

    The certificate is in the file if there is one, else beside the key on the token, or at the NV index.
    """

    handle: int = 0x81020000
    nv_index: int = DEFAULT_NV_INDEX
    certificate_file: Path | None = None
    chain_file: Path | None = None
    auth_file: Path | None = None
    token: TokenSettings | None = None

    @property
    def auth(self) -> Callable[[], bytes] | None:
        """Reads the key's authorisation value when it is needed."""
        return secret_from(self.auth_file)


@dataclass(frozen=True, slots=True)
class ManufacturerSettings:
    """Whose vouchers are believed. ``voucher_signers``: SHA-256 of SubjectPublicKeyInfo; empty: any.
    ``cloud_registrar`` is the maker's own, ``host:port``, trusted as a server by ``cloud_anchors``."""

    anchors: Path
    voucher_signers: frozenset[bytes] = frozenset()
    allow_nonceless: bool = False
    assertions: frozenset[str] = frozenset({"verified", "logged", "proximity"})
    cloud_registrar: str | None = None
    cloud_anchors: Path | None = None


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """How registrars are found: ``order`` names the sources, best first, and times are in seconds.
    ``interfaces`` empty: all that have multicast."""

    order: tuple[Source, ...] = tuple(Source)
    interfaces: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    dhcp_option: int | None = None
    listen_seconds: float = 3
    progress_seconds: float = 5


@dataclass(frozen=True, slots=True)
class JoinProxySettings:
    """The join proxy: which ``interfaces`` it serves at which ``port`` (0: any), to which ``registrars`` it
    leads (none: our own, or found), and how much one source may have."""

    interfaces: tuple[str, ...] = ()
    port: int = 0
    registrars: tuple[str, ...] = ()
    connections: int = 64
    connections_per_source: int = 4
    new_per_minute: int = 20
    octets: int = 4 << 20
    seconds: float = 300


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Bounds of one connection, in seconds and bytes."""

    connect_seconds: float = 15
    read_seconds: float = 30
    total_seconds: float = 120
    header_bytes: int = 16384
    body_bytes: int = 1 << 20
    inline_wait_seconds: float = 30


@dataclass(frozen=True, slots=True)
class EstSettings:
    """Enrollment over EST (RFC 7030). ``url`` is ``https://host:port``; None: the registrar."""

    kind: ClassVar[str] = "est"

    name: str | None = None
    url: str | None = None
    label: str | None = None
    username: str | None = None
    password_file: Path | None = None
    tls_unique: bool = False

    @property
    def credentials(self) -> HttpCredentials | None:
        """User and password, read now. Raises ConfigError."""
        if self.username is None or self.password_file is None:
            return None
        try:
            return HttpCredentials(self.username, read_secret(self.password_file).decode())
        except UnicodeDecodeError:
            raise ConfigError("config.secret", f"{self.password_file}: not UTF-8") from None


@dataclass(frozen=True, slots=True)
class CmpSettings:
    """Enrollment over CMP (RFC 9483). ``origin`` is ``http[s]://host:port``; None: the registrar.

    ``path`` None: the well-known one. Messages are signed by the device's identity or, with a ``reference``,
    protected by the secret that it names. ``authorities``: SHA-256 of keys that may sign answers without
    being CA or RA by their certificates.
    """

    kind: ClassVar[str] = "cmp"

    name: str | None = None
    origin: str | None = None
    path: str | None = None
    profile: str | None = None
    request: Literal["auto", "cr", "p10cr"] = "auto"
    reference: str | None = None
    secret_file: Path | None = None
    mac: Literal["pbm", "pbmac1"] = "pbm"
    hmac_sha1: bool = False
    recipient: str | None = None
    authorities: frozenset[bytes] = frozenset()
    implicit_confirm: bool = True
    support_messages: bool = True

    @property
    def secret(self) -> tuple[str, bytes] | None:
        """Reference and secret, read now. Raises ConfigError."""
        if self.reference is None or self.secret_file is None:
            return None
        return self.reference, read_secret(self.secret_file)


@dataclass(frozen=True, slots=True)
class CmcSettings:
    """Enrollment over CMC (RFC 10002). ``origin`` is ``http[s]://host:port``; None: the registrar, over EST.

    Messages are signed by the device's identity or, with a ``secret_file``, at first by the new key, with the
    secret as proof. ``authorities``: SHA-256 of keys that may sign answers without being CA or RA by their
    certificates.
    """

    kind: ClassVar[str] = "cmc"

    name: str | None = None
    origin: str | None = None
    path: str = FULLCMC
    request: Form = Form.PKCS10
    identification: str = ""
    secret_file: Path | None = None
    possession: Possession = Possession.SIGNATURE
    authorities: frozenset[bytes] = frozenset()
    legacy: frozenset[CmcLegacy] = frozenset()
    return_data: bool = True

    @property
    def secret(self) -> SharedSecret | None:
        """The secret, read now. Raises ConfigError."""
        if self.secret_file is None:
            return None
        return SharedSecret(read_secret(self.secret_file), self.identification)


@dataclass(frozen=True, slots=True)
class ChallengeSettings:
    """Where a SCEP challenge comes from: a file, or the output of a command (``argv``, without a shell)."""

    file: Path | None = None
    command: tuple[str, ...] = ()
    timeout_seconds: float = 30


@dataclass(frozen=True, slots=True)
class ScepSettings:
    """Enrollment over SCEP (RFC 8894). ``origin`` is ``http[s]://host:port``, ``fingerprints`` are SHA-256 of
    certificates of its CA or RA; ``key`` None is the identity's."""

    kind: ClassVar[str] = "scep"

    origin: str
    name: str | None = None
    path: str = DEFAULT_PATH
    ca: str = ""
    fingerprints: frozenset[bytes] = frozenset()
    challenge: ChallengeSettings | None = None
    legacy: frozenset[Legacy] = frozenset()
    decryption: Decryption = Decryption.OWN_KEY
    key: KeyAlgorithm | None = None
    cipher: Literal["aes128", "aes256"] = "aes128"
    poll_seconds: float = 300
    challenge_at_renewal: bool = False


@dataclass(frozen=True, slots=True)
class AttestationSettings:
    """Who certifies the attestation key: a CA at ``ca_url``, trusted by ``anchors_file`` (None: as the ACME
    server), or nobody any more, because ``chain_file`` holds
    the certificate already. ``algorithm``: the attestation key's kind. ``device_in_csr``: name the device
    in the CSR, too."""

    ca_url: str | None = None
    chain_file: Path | None = None
    anchors_file: Path | None = None
    device_in_csr: bool = True
    hardware_type: str | None = None
    algorithm: KeyAlgorithm = KeyAlgorithm.P256


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Who writes TXT records: a DNS server that takes updates, or a program (``argv``, without a shell)."""

    server: str = ""
    port: int = 53
    zone: str = ""
    key_name: str | None = None
    key_file: Path | None = None
    key_algorithm: str = "hmac-sha256"
    command: tuple[str, ...] = ()
    timeout_seconds: float = 60


@dataclass(frozen=True, slots=True)
class AcmeSettings:
    """Enrollment over ACME (RFC 8555). ``origin`` is ``https://host:port``, ``directory`` a target there.

    ``challenges`` are the kinds that may be met, best first. ``external`` names the external account whose
    key is in ``external_file``."""

    kind: ClassVar[str] = "acme"

    origin: str
    directory: str
    name: str | None = None
    anchors_file: Path | None = None
    challenges: tuple[str, ...] = ("device-attest-01",)
    contacts: tuple[str, ...] = ()
    external: str | None = None
    external_file: Path | None = None
    profile: str | None = None
    alternate: str | None = None
    for_server: bool = False
    http_port: int = 80
    tls_port: int = 443
    dns: DnsSettings | None = None
    attestation: AttestationSettings = AttestationSettings()

    @property
    def external_account(self) -> ExternalAccount | None:
        """Key identifier and MAC key, read now. Raises ConfigError."""
        if self.external is None or self.external_file is None:
            return None
        try:
            text = read_secret(self.external_file).decode("ascii")
        except UnicodeDecodeError:
            raise ConfigError("config.secret", f"{self.external_file}: not base64url") from None
        return ExternalAccount.parse(self.external, text)


ProtocolSettings = EstSettings | CmpSettings | CmcSettings | ScepSettings | AcmeSettings
"""One rung of a ladder. Each kind of it has a ``kind`` as the file spells it, and a ``name`` or None."""


def rung_names(rungs: Sequence[tuple[str, str | None]]) -> tuple[str, ...]:
    """The names of *rungs*, which are kinds with a name or None. One without a name of its own is called by
    its kind, and by its place too if it is not the first of its kind."""
    kinds = [kind for kind, _ in rungs]
    return tuple(
        name or (kind if kinds.index(kind) == place else f"{kind}-{place + 1}")
        for place, (kind, name) in enumerate(rungs)
    )


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """What kind of key an identity has."""

    algorithm: KeyAlgorithm = KeyAlgorithm.P256


@dataclass(frozen=True, slots=True)
class SanSettings:
    """Alternative names to ask for. All but addresses are templates, in which ``{serial}``, ``{mac}`` and
    ``{hostname}`` stand for what the device is called."""

    dns: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    email: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RenewSettings:
    """When to renew, as a part of the certificate's life and at the latest so long before its end, with which
    key, whether a certificate that has ended is shown to the server all the same, and whether the server is
    asked for its wish."""

    fraction: float = 0.667
    same_key: bool = False
    before_end_days: float = 7
    after_expiry: bool = False
    ask_server: bool = False

    @property
    def before_end(self) -> timedelta:
        """The absolute floor of the renewal moment."""
        return timedelta(days=self.before_end_days)


@dataclass(frozen=True, slots=True)
class RevocationSettings:
    """Whether and how often to ask if the own certificate is revoked."""

    check: bool = True
    interval_hours: float = 24


@dataclass(frozen=True, slots=True)
class HookSettings:
    """What is run after the files were placed: ``argv``, without a shell, for at most ``timeout_seconds``."""

    argv: tuple[str, ...]
    timeout_seconds: float = 30


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """Where and for whom other programs find the files, and who is told. ``directory`` None: below the state.

    ``owner`` and ``group`` are names or numbers; None leaves what the creating process gives.
    """

    directory: Path | None = None
    owner: str | None = None
    group: str | None = None
    mode: int = 0o644
    key_mode: int = 0o640
    hooks: tuple[HookSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """One identity to enroll. ``protocols`` is its ladder, best first; ``subject`` maps attribute names to
    templates."""

    name: str = "ldevid"
    protocols: tuple[ProtocolSettings, ...] = (EstSettings(),)
    key: KeyChoice = KeyChoice()
    subject: Mapping[str, str] = field(default_factory=lambda: _SUBJECT)
    san: SanSettings = SanSettings()
    renew: RenewSettings = RenewSettings()
    revocation: RevocationSettings = RevocationSettings()
    verify_url: str | None = None
    deploy: DeploySettings = DeploySettings()

    @property
    def deploy_directory(self) -> Path | None:
        """Where its files go, if not below the state directory."""
        return self.deploy.directory

    @property
    def rungs(self) -> tuple[str, ...]:
        """The names of the ladder's rungs, best first."""
        return rung_names([(p.kind, p.name) for p in self.protocols])


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The resident process. ``group`` may read at its control socket ("": the group that it runs as);
    ``worker_seconds`` ends a step that is still busy then; ``metrics_port`` is on loopback."""

    group: str = ""
    worker_seconds: float = 3600
    metrics_file: Path | None = None
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. ``registrars`` are ``host:port``, IPv6 in brackets; ``interface`` is whose
    address ``{mac}`` is. ``discovery`` None: the registrars are all there are."""

    registrars: tuple[str, ...]
    manufacturer: ManufacturerSettings
    discovery: DiscoverySettings | None = None
    join_proxy: JoinProxySettings | None = None
    state_directory: Path = Path("/var/lib/holdfast")
    keys: KeySettings = KeySettings()
    idevid: IdevidSettings = IdevidSettings()
    proxy: str | None = None
    proxy_credentials: Path | None = None
    interface: str | None = None
    clock: Policy = "auto"
    limits: LimitSettings = LimitSettings()
    identities: tuple[IdentitySettings, ...] = (IdentitySettings(),)
    agent: AgentSettings = AgentSettings()
