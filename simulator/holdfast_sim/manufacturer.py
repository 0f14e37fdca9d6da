"""The manufacturer: the anchors of its IDevIDs and the signer of its vouchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from asn1crypto import core
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from holdfast.wire import oids
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain, KeyAlgorithm

from . import ca
from .ca import Authority, Credential, PublicKey, Validity

HARDWARE_TYPE = "1.3.6.1.4.1.32473.1"  # RFC 5612: the enterprise number kept for examples


@dataclass(frozen=True, slots=True)
class Manufacturer:
    """``issuing`` is None where only the public side was given: then no IDevID can be made here."""

    root: x509.Certificate
    idevid_ca: x509.Certificate
    masa: Credential = field(repr=False)
    issuing: Authority | None = field(default=None, repr=False)

    @property
    def anchors(self) -> Chain:
        return (self.root,)

    @property
    def intermediates(self) -> Chain:
        return (self.idevid_ca,)

    @classmethod
    def create(
        cls, now: datetime, random: Callable[[int], bytes], algorithm: KeyAlgorithm = KeyAlgorithm.P256
    ) -> Manufacturer:
        forever = Validity.starting(now, None)
        root = Authority.root(
            ca.name("Simulated Manufacturer Root", "Sim Devices"), forever, random, algorithm
        )
        issuing = root.subordinate(ca.name("Simulated IDevID CA", "Sim Devices"), forever, algorithm)
        masa = root.credential_for(
            ca.name("Simulated MASA", "Sim Devices"), forever, ca.end_entity(), algorithm
        )
        return cls(root.certificate, issuing.certificate, masa, issuing)

    @classmethod
    def load(cls, directory: Path, random: Callable[[int], bytes]) -> Manufacturer:
        """Read what a factory line left. Raises ConfigError (``sim.manufacturer``).

        Files: ``manufacturer-root.pem``, ``idevid-ca.pem``, ``masa.pem`` and ``masa-key.pem``; with
        ``idevid-ca-key.pem`` this simulator can make devices too.
        """
        try:
            root = _certificates(directory / "manufacturer-root.pem")[0]
            idevid_ca = _certificates(directory / "idevid-ca.pem")[0]
            idevid_ca.verify_directly_issued_by(root)
            masa = _credential(directory, "masa")
            issuing = None
            if (directory / "idevid-ca-key.pem").exists():
                issuing = Authority(_credential(directory, "idevid-ca", root), random)
        except InvalidSignature as error:
            raise ConfigError(
                "sim.manufacturer", f"{directory}: the root did not sign idevid-ca.pem"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError("sim.manufacturer", f"{directory}: {error}") from error
        return cls(root, idevid_ca, masa, issuing)

    def idevid(
        self, serial_number: str, public_key: PublicKey, now: datetime, masa_url: str = "masa.example"
    ) -> Chain:
        """An IDevID for *public_key*, leaf first without the root. ConfigError without the CA's key."""
        if self.issuing is None:
            raise ConfigError("sim.manufacturer", "the key of the IDevID CA is not here")
        subject = ca.name("Simulated Gateway", "Sim Devices", serial_number)
        url = x509.UnrecognizedExtension(
            x509.ObjectIdentifier(oids.MASA_URL), core.IA5String(masa_url).dump()
        )
        san = x509.SubjectAlternativeName([hardware_module_name(serial_number)])
        extensions = (*ca.end_entity(), (url, False), (san, False))
        leaf = self.issuing.sign(subject, public_key, Validity.starting(now, None), extensions)
        return (leaf, self.issuing.certificate)

    def device(self, serial_number: str, now: datetime, masa_url: str = "masa.example") -> Credential:
        """A software device: an IDevID with its key."""
        key = ca.new_key(KeyAlgorithm.P256)
        return Credential(self.idevid(serial_number, key.public_key(), now, masa_url), key)


class _HardwareModuleName(core.Sequence):  # type: ignore[misc]
    """RFC 4108 §5."""

    _fields = [("hw_type", core.ObjectIdentifier), ("hw_serial_num", core.OctetString)]  # noqa: RUF012


def hardware_module_name(serial_number: str) -> x509.OtherName:
    module = _HardwareModuleName({"hw_type": HARDWARE_TYPE, "hw_serial_num": serial_number.encode()})
    return x509.OtherName(x509.ObjectIdentifier(oids.HARDWARE_MODULE_NAME), module.dump())


def _certificates(path: Path) -> Chain:
    return tuple(x509.load_pem_x509_certificates(path.read_bytes()))


def _credential(directory: Path, name: str, *above: x509.Certificate) -> Credential:
    key = load_pem_private_key((directory / f"{name}-key.pem").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"{name}-key.pem is neither EC nor RSA")
    chain = _certificates(directory / f"{name}.pem")
    if key.public_key() != chain[0].public_key():
        raise ValueError(f"{name}-key.pem is not the key of {name}.pem")
    return Credential((*chain, *above), key)
