"""The manufacturer's PKI: a root, the CA that issues IDevIDs, and the MASA's voucher signer.

Keys are software keys in PEM files of mode 0600, or, for root and issuing CA, in an HSM. The directory
holds ``manufacturer-root.pem``, ``idevid-ca.pem``, ``masa.pem``, each with its ``-key.pem`` unless that is in
the HSM, and ``factory.json``, which is written last: without it the directory is an unfinished start and made
anew.
"""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.wire.errors import ConfigError, StateCorrupt
from holdfast_factory.files import make_private_directory, write_file

NEVER_EXPIRES: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # 802.1AR; RFC 5280 §4.1.2.5
ORGANIZATION: Final = "Holdfast Example Works"
MODEL: Final = "Gateway"
_MASA_LIFE: Final = timedelta(days=3650)
ROOT: Final = "manufacturer-root"
IDEVID_CA: Final = "idevid-ca"
MASA: Final = "masa"
SETTINGS: Final = "factory.json"
_SETTINGS_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Product:
    """What every IDevID of this factory says.

    *masa_url* is an authority (``host:port``) or a full https URL (RFC 8995 §2.3.2). *hardware_type* is
    the dotted OID of the HardwareModuleName; the default stands in the arc for examples (RFC 5612).
    """

    masa_url: str
    organization: str = ORGANIZATION
    model: str = MODEL
    hardware_type: str = "1.3.6.1.4.1.32473.1"

    def __post_init__(self) -> None:
        text = self.masa_url
        if not text or len(text) > 1024 or not text.isascii() or any(c <= " " or c > "~" for c in text):
            raise ConfigError(
                "factory.masa-url", f"{text[:80]!r} is not an authority or URL", clause="RFC 8995 §2.3.2"
            )
        for name in ("organization", "model"):
            if not 1 <= len(getattr(self, name)) <= 64:
                raise ConfigError("factory.product", f"{name} must have 1 to 64 characters", clause="X.520")
        try:
            x509.ObjectIdentifier(self.hardware_type)
        except ValueError as error:
            raise ConfigError("factory.product", f"hardware_type: {error}", clause="RFC 4108 §5") from error


@dataclass(frozen=True, slots=True)
class Authority:
    """One certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Factory:
    """An open factory directory."""

    directory: Path
    product: Product
    root: Authority
    idevid_ca: Authority
    masa: Authority


class KeyHome(Protocol):
    """Where the CA keys of a factory live."""

    def make(self, name: str) -> ec.EllipticCurvePrivateKey:
        """A new P-256 key called *name*, which takes the place of one that an unfinished start left."""
        ...

    def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        """The key called *name*."""
        ...


class PemKeys:
    """Keys in the factory's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, name: str) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        write_file(self._directory / f"{name}-key.pem", _key_pem(key), private=True)
        return key

    def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Raises OSError, ValueError."""
        key = serialization.load_pem_private_key((self._directory / f"{name}-key.pem").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{name}-key.pem is no EC key")
        return key


def init_factory(directory: Path, product: Product, now: datetime, ca_keys: KeyHome | None = None) -> Factory:
    """Make the manufacturer's PKI in *directory*, or open the one that is there.

    *ca_keys*: where root and issuing CA have their keys, if not in the directory. Raises
    :class:`~holdfast.wire.errors.ConfigError` if it is there for another product.
    """
    if (directory / SETTINGS).exists():
        factory = open_factory(directory, ca_keys)
        if factory.product != product:
            raise ConfigError(
                "factory.other-product",
                f"{directory} was made for {factory.product}, not for {product}: use another directory",
            )
        return factory
    make_private_directory(directory)
    here = PemKeys(directory)
    keys = ca_keys or here
    root_key, ca_key, masa_key = keys.make(ROOT), keys.make(IDEVID_CA), here.make(MASA)
    root = _issue(None, "Manufacturer Root", product, now, NEVER_EXPIRES, key=root_key, path_length=1)
    idevid_ca = _issue(root, "IDevID Issuing CA", product, now, NEVER_EXPIRES, key=ca_key, path_length=0)
    masa = _issue(root, "MASA Voucher Signer", product, now, now + _MASA_LIFE, key=masa_key, path_length=None)
    for name, authority in ((ROOT, root), (IDEVID_CA, idevid_ca), (MASA, masa)):
        write_file(directory / f"{name}.pem", authority.certificate.public_bytes(serialization.Encoding.PEM))
    write_file(directory / SETTINGS, msgspec.json.encode(asdict(product)) + b"\n")
    return Factory(directory, product, root, idevid_ca, masa)


def open_factory(directory: Path, ca_keys: KeyHome | None = None) -> Factory:
    """Open the factory in *directory*, checking that keys, certificates and chain belong together.

    *ca_keys* as for :func:`init_factory`. Raises :class:`~holdfast.wire.errors.ConfigError` if there is
    none, and :class:`~holdfast.wire.errors.StateCorrupt` if it is damaged.
    """
    product = read_product(directory)
    here = PemKeys(directory)
    try:
        root = _load(directory, ROOT, ca_keys or here)
        idevid_ca = _load(directory, IDEVID_CA, ca_keys or here)
        masa = _load(directory, MASA, here)
        for authority in (root, idevid_ca, masa):
            authority.certificate.verify_directly_issued_by(root.certificate)
    except (OSError, ValueError, TypeError, InvalidSignature) as error:
        raise StateCorrupt("factory.corrupt", f"{directory}: {error or type(error).__name__}") from error
    return Factory(directory, product, root, idevid_ca, masa)


def read_product(directory: Path) -> Product:
    """What the factory in *directory* makes. Raises ConfigError if there is none, and StateCorrupt."""
    settings = directory / SETTINGS
    if not settings.exists():
        raise ConfigError(
            "factory.missing", f"{directory} holds no factory: run holdfast-factory init {directory}"
        )
    try:
        with settings.open("rb") as file:
            return msgspec.json.decode(file.read(_SETTINGS_LIMIT), type=Product)
    except (msgspec.MsgspecError, OSError) as error:
        raise StateCorrupt("factory.corrupt", f"{directory}: {error}") from error


def _issue(
    issuer: Authority | None,
    name: str,
    product: Product,
    start: datetime,
    end: datetime,
    *,
    key: ec.EllipticCurvePrivateKey,
    path_length: int | None,
) -> Authority:
    """A certificate for *key*; a CA's if *path_length* is given, self-signed without *issuer*."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, product.organization),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{product.model} {name}"),
        ]
    )
    signer = issuer.key if issuer else key
    issuer_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    is_ca = path_length is not None
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(key_usage(ca=is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_key_id, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Authority(certificate, key)


def make_authority(
    factory: Factory, name: str, title: str, start: datetime, end: datetime, *, ca: bool = True
) -> None:
    """Another CA below the factory's root, or a signer of documents: ``<name>.pem`` and ``<name>-key.pem`` in
    its directory."""
    key = PemKeys(factory.directory).make(name)
    made = _issue(factory.root, title, factory.product, start, end, key=key, path_length=0 if ca else None)
    write_file(factory.directory / f"{name}.pem", made.certificate.public_bytes(serialization.Encoding.PEM))


def load_authority(directory: Path, name: str) -> Authority:
    """What :func:`make_authority` wrote. Raises StateCorrupt."""
    try:
        return _load(directory, name, PemKeys(directory))
    except (OSError, ValueError, TypeError) as error:
        raise StateCorrupt("factory.corrupt", f"{directory / name}: {error}") from error


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """PEM files of a TLS server."""

    chain: Path
    key: Path


def make_server(factory: Factory, name: str, host: str, start: datetime, life: timedelta) -> ServerFiles:
    """A new key and certificate for a TLS server of the factory's at *host*, a name or an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = factory.root
    try:
        san: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        san = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([san]), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )
    files = ServerFiles(factory.directory / f"{name}.pem", factory.directory / f"{name}-key.pem")
    write_file(files.key, _key_pem(key), private=True)
    write_file(files.chain, certificate.public_bytes(serialization.Encoding.PEM))
    return files


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Of a CA: to sign certificates and CRLs; of everybody else: to sign."""
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(directory: Path, name: str, keys: KeyHome) -> Authority:
    certificate = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
    key = keys.load(name)
    if key.public_key() != certificate.public_key():
        raise ValueError(f"{name}-key.pem is not the key of {name}.pem")
    return Authority(certificate, key)
