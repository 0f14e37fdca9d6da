"""The configuration file: YAML in, frozen records out, or one error that lists every fault with its line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from holdfast.host.config_formats import (
    https_url,
    proxy,
    registrar,
    split_acme_url,
    split_cmc_url,
    split_cmp_url,
    split_est_url,
    split_scep_url,
)
from holdfast.host.config_model import (
    DEFAULT_NV_INDEX,
    AcmeSettings,
    AgentSettings,
    AttestationSettings,
    ChallengeSettings,
    CmcSettings,
    CmpSettings,
    DeploySettings,
    DiscoverySettings,
    DnsSettings,
    EstSettings,
    HookSettings,
    IdentitySettings,
    IdevidSettings,
    JoinProxySettings,
    KeyChoice,
    KeySettings,
    LimitSettings,
    ManufacturerSettings,
    ProtocolSettings,
    RenewSettings,
    RevocationSettings,
    SanSettings,
    ScepSettings,
    Settings,
)
from holdfast.host.config_rules import Rules
from holdfast.host.config_shape import faults_in, schema_text, with_defaults
from holdfast.host.config_tokens import TokenSettings, read_home, read_idevid
from holdfast.host.config_yaml import Fault, dotted, parse
from holdfast.life.search import Source
from holdfast.wire.cmc.settings import Form, Possession
from holdfast.wire.cmc.settings import Legacy as CmcLegacy
from holdfast.wire.cmc.site import DEFAULT_PATH as FULLCMC
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import KeyAlgorithm
from holdfast.wire.scep.settings import Decryption, Legacy

__all__ = [
    "AcmeSettings",
    "AttestationSettings",
    "ChallengeSettings",
    "CmcSettings",
    "CmpSettings",
    "DeploySettings",
    "DiscoverySettings",
    "DnsSettings",
    "EstSettings",
    "HookSettings",
    "IdentitySettings",
    "IdevidSettings",
    "JoinProxySettings",
    "KeyChoice",
    "KeySettings",
    "LimitSettings",
    "ManufacturerSettings",
    "ProtocolSettings",
    "RenewSettings",
    "RevocationSettings",
    "SanSettings",
    "ScepSettings",
    "Settings",
    "TokenSettings",
    "load",
    "schema_text",
]

SYSTEMCTL: Final = ("/usr/bin/systemctl", "/bin/systemctl")
MAX_BYTES: Final = 1 << 20
_DETAIL: Final = 1900
_SERVICE_CREDENTIALS: Final = Path("/run/credentials/holdfast.service")


def load(path: Path, *, credentials: Path | None = None) -> Settings:
    """The settings in *path*. Relative paths in it start at its directory.

    *credentials* is where systemd put the credentials (default: ``$CREDENTIALS_DIRECTORY``). Raises
    ConfigError whose detail has one line ``file:line: key.path: message`` for each fault, by line.
    """
    document = parse(_read(path))
    faults = [*document.faults]
    if document.data is not None or not faults:
        faults += faults_in(document)
    base = path.absolute().parent
    credentials = credentials or _credentials_directory()
    if isinstance(document.data, dict):
        faults += Rules(document, base, credentials, frozenset(f.path for f in faults)).faults()
    if faults:
        raise ConfigError("config.invalid", _listed(path, faults))
    return _Reader(base, credentials).settings(with_defaults(document.data))


def _credentials_directory() -> Path:
    return Path(os.environ.get("CREDENTIALS_DIRECTORY") or _SERVICE_CREDENTIALS)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError("config.too-large", f"{path}: more than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("config.invalid", f"{path}:{line}: not UTF-8") from error


def _listed(path: Path, faults: list[Fault]) -> str:
    """All *faults*, or as many as an error may carry and the number of the others."""
    lines = [f"{path}:{fault}" for fault in sorted(faults, key=lambda f: (f.line, dotted(f.path)))]
    shown: list[str] = []
    while lines and sum(map(len, shown)) + len(shown) + len(lines[0]) <= _DETAIL:
        shown.append(lines.pop(0))
    return "\n".join([*shown, f"and {len(lines)} more"] if lines else shown)


class _Reader:
    """The way from plain values, which are valid and complete, to records."""

    def __init__(self, base: Path, credentials: Path) -> None:
        self._base = base
        self._credentials = credentials

    def settings(self, data: Any) -> Settings:
        maker, limits = data["manufacturer"], data["limits"]
        keys = self._keys(data["keys"], tuple(i["name"] for i in data["identities"]))
        return Settings(
            registrars=tuple(map(registrar, data.get("registrars", ()))),
            discovery=_discovery(data),
            join_proxy=_join_proxy(data["join-proxy"]) if "join-proxy" in data else None,
            manufacturer=ManufacturerSettings(
                anchors=self._base / maker["anchors"],
                voucher_signers=frozenset(map(bytes.fromhex, maker["voucher-signers"])),
                allow_nonceless=maker["allow-nonceless"],
                assertions=frozenset(maker["assertions"]),
                cloud_registrar=registrar(maker["cloud-registrar"]) if "cloud-registrar" in maker else None,
                cloud_anchors=self._path(maker, "cloud-anchors"),
            ),
            state_directory=Path(data["state-directory"]),
            keys=keys,
            idevid=self._idevid(data["idevid"], keys.token),
            proxy=proxy(data["proxy"]) if "proxy" in data else None,
            proxy_credentials=self._path(data, "proxy-credentials"),
            interface=data.get("interface"),
            clock=data["clock"],
            limits=LimitSettings(**{name.replace("-", "_"): value for name, value in limits.items()}),
            identities=tuple(map(self._identity, data["identities"])),
            agent=self._agent(data["agent"]),
        )

    def _agent(self, data: Any) -> AgentSettings:
        metrics = data["metrics"]
        return AgentSettings(
            group=data.get("group", ""),
            worker_seconds=data["worker-seconds"],
            metrics_file=Path(metrics["file"]) if "file" in metrics else None,
            metrics_port=int(metrics["port"]) if "port" in metrics else None,
        )

    def _keys(self, data: Any, identities: tuple[str, ...]) -> KeySettings:
        return KeySettings(
            tcti=data["tcti"],
            srk=int(data["srk"]),
            storage=data["storage"],
            auth_file=self._path(data, "auth-file"),
            owner_auth_file=self._path(data, "owner-auth-file"),
            identities=identities,
            token=read_home(data["pkcs11"], self._base, self._credentials) if "pkcs11" in data else None,
        )

    def _idevid(self, data: Any, home: TokenSettings | None) -> IdevidSettings:
        certificate = data["certificate"]
        return IdevidSettings(
            handle=int(data["handle"]),
            nv_index=int(certificate.get("nv-index", DEFAULT_NV_INDEX)),
            certificate_file=self._path(certificate, "file"),
            chain_file=self._path(data, "chain-file"),
            auth_file=self._path(data, "auth-file"),
            token=read_idevid(data, self._base, self._credentials, home),
        )

    def _identity(self, data: Any) -> IdentitySettings:
        return IdentitySettings(
            name=data["name"],
            protocols=tuple(map(self._protocol, data["protocols"])),
            key=KeyChoice(KeyAlgorithm(data["key"]["algorithm"])),
            subject=MappingProxyType(data["subject"]),
            san=SanSettings(**{kind: tuple(names) for kind, names in data["san"].items()}),
            renew=self._renew(data["renew"]),
            verify_url=https_url(data["verify"]["url"]) if "verify" in data else None,
            revocation=RevocationSettings(data["revocation"]["check"], data["revocation"]["interval-hours"]),
            deploy=_deploy(data["deploy"]),
        )

    def _renew(self, data: Any) -> RenewSettings:
        return RenewSettings(
            data["fraction"],
            data["same-key"],
            data["before-end-days"],
            data["after-expiry"],
            data["ask-server"],
        )

    def _protocol(self, data: Any) -> ProtocolSettings:
        ((kind, settings),) = data.items()
        readers: dict[str, Callable[[Any], ProtocolSettings]] = {
            EstSettings.kind: self._est_settings,
            CmpSettings.kind: self._cmp_settings,
            CmcSettings.kind: self._cmc_settings,
            ScepSettings.kind: self._scep_settings,
            AcmeSettings.kind: self._acme_settings,
        }
        return readers[kind](settings)

    def _est_settings(self, data: Any) -> EstSettings:
        url, label = split_est_url(data["url"]) if "url" in data else (None, None)
        password = self._path(data, "password-file")
        if "password-credential" in data:
            password = self._credentials / data["password-credential"]
        return EstSettings(
            name=data.get("name"),
            url=url,
            label=data.get("label", label),
            username=data.get("username"),
            password_file=password,
            tls_unique=data["tls-unique"],
        )

    def _cmp_settings(self, data: Any) -> CmpSettings:
        origin, path = split_cmp_url(data["url"]) if "url" in data else (None, None)
        secret = self._path(data, "secret-file")
        if "secret-credential" in data:
            secret = self._credentials / data["secret-credential"]
        return CmpSettings(
            name=data.get("name"),
            origin=origin,
            path=path,
            profile=data.get("profile"),
            request=data["request"],
            reference=data.get("reference"),
            secret_file=secret,
            mac=data["mac"],
            hmac_sha1=data["hmac-sha1"],
            recipient=data.get("recipient"),
            authorities=frozenset(map(bytes.fromhex, data["authorities"])),
            implicit_confirm=data["implicit-confirm"],
            support_messages=data["support-messages"],
        )

    def _cmc_settings(self, data: Any) -> CmcSettings:
        origin, path = split_cmc_url(data["url"]) if "url" in data else (None, FULLCMC)
        secret = self._path(data, "secret-file")
        if "secret-credential" in data:
            secret = self._credentials / data["secret-credential"]
        return CmcSettings(
            name=data.get("name"),
            origin=origin,
            path=path,
            request=Form(data["request"]),
            identification=data.get("identification", ""),
            secret_file=secret,
            possession=Possession(data["possession"]),
            authorities=frozenset(map(bytes.fromhex, data["authorities"])),
            legacy=frozenset(map(CmcLegacy, data["legacy"])),
            return_data=data["return-data"],
        )

    def _scep_settings(self, data: Any) -> ScepSettings:
        origin, where = split_scep_url(data["url"])
        pins = (data[each].replace(":", "") for each in ("ca-fingerprint", "ra-fingerprint") if each in data)
        return ScepSettings(
            origin=origin,
            name=data.get("name"),
            path=where,
            ca=data["ca-identifier"],
            fingerprints=frozenset(map(bytes.fromhex, pins)),
            challenge=self._challenge(data),
            legacy=frozenset(map(Legacy, data["legacy"])),
            decryption=Decryption(data["decryption"]),
            key=KeyAlgorithm(data["key"]["algorithm"]) if "key" in data else None,
            cipher=data["cipher"],
            poll_seconds=data["poll-seconds"],
            challenge_at_renewal=data["challenge-at-renewal"],
        )

    def _acme_settings(self, data: Any) -> AcmeSettings:
        origin, directory = split_acme_url(data["url"])
        secret = self._path(data, "external-account-file")
        if "external-account-credential" in data:
            secret = self._credentials / data["external-account-credential"]
        attestation = data["attestation"]
        return AcmeSettings(
            origin=origin,
            directory=directory,
            name=data.get("name"),
            anchors_file=self._path(data, "anchors-file"),
            challenges=tuple(data["challenges"]),
            contacts=tuple(data["contacts"]),
            external=data.get("external-account"),
            external_file=secret,
            profile=data.get("profile"),
            alternate=data.get("alternate-chain"),
            for_server=data["use"] == "server",
            http_port=data["http-port"],
            tls_port=data["tls-port"],
            dns=self._dns(data["dns"]) if "dns" in data else None,
            attestation=AttestationSettings(
                ca_url=https_url(attestation["ca-url"]) if "ca-url" in attestation else None,
                chain_file=self._path(attestation, "chain-file"),
                anchors_file=self._path(attestation, "anchors-file"),
                device_in_csr=attestation["device-in-csr"],
                hardware_type=attestation.get("hardware-type"),
                algorithm=KeyAlgorithm(attestation["key"]),
            ),
        )

    def _dns(self, data: Any) -> DnsSettings:
        return DnsSettings(
            server=data.get("server", ""),
            port=data["port"],
            zone=data.get("zone", ""),
            key_name=data.get("key-name"),
            key_file=self._path(data, "key-file"),
            key_algorithm=data["key-algorithm"],
            command=tuple(data.get("command", ())),
            timeout_seconds=data["timeout-seconds"],
        )

    def _challenge(self, data: Any) -> ChallengeSettings | None:
        if "challenge-command" in data:
            timeout = data["challenge-timeout-seconds"]
            return ChallengeSettings(command=tuple(data["challenge-command"]), timeout_seconds=timeout)
        file = self._path(data, "challenge-file")
        if "challenge-credential" in data:
            file = self._credentials / data["challenge-credential"]
        return None if file is None else ChallengeSettings(file=file)

    def _path(self, data: Any, key: str) -> Path | None:
        return self._base / data[key] if key in data else None


def _discovery(data: Any) -> DiscoverySettings | None:
    """None where registrars are named and nothing is said about others."""
    if "discovery" not in data:
        return None if "registrars" in data else DiscoverySettings()
    found = data["discovery"]
    return DiscoverySettings(
        order=tuple(map(Source, found["order"])),
        interfaces=tuple(found["interfaces"]),
        domains=tuple(each.lower() for each in found["domains"]),
        dhcp_option=found.get("dhcp-option"),
        listen_seconds=found["listen-seconds"],
        progress_seconds=found["progress-seconds"],
    )


def _join_proxy(data: Any) -> JoinProxySettings:
    return JoinProxySettings(
        interfaces=tuple(data["interfaces"]),
        port=data["port"],
        registrars=tuple(map(registrar, data["registrars"])),
        connections=data["connections"],
        connections_per_source=data["connections-per-source"],
        new_per_minute=data["new-per-minute"],
        octets=data["octets"],
        seconds=data["seconds"],
    )


def _deploy(data: Any) -> DeploySettings:
    return DeploySettings(
        directory=Path(data["directory"]) if "directory" in data else None,
        owner=data.get("owner"),
        group=data.get("group"),
        mode=int(data["mode"], 8),
        key_mode=int(data["key-mode"], 8),
        hooks=tuple(map(_hook, data["hooks"])),
    )


def _hook(data: Any) -> HookSettings:
    if "command" in data:
        return HookSettings(tuple(data["command"]), data["timeout-seconds"])
    action = data.get("action", "reload-or-restart")
    systemctl = next((path for path in SYSTEMCTL if Path(path).exists()), SYSTEMCTL[0])
    return HookSettings((systemctl, "--no-ask-password", action, "--", data["unit"]), data["timeout-seconds"])
