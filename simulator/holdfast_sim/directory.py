"""What the servers' PKI looks like as files, for clients that are not ours."""

from __future__ import annotations

from pathlib import Path

from .tls import key_pem, pem
from .world import World

ANCHORS = "domain-root.pem"


def write(world: World, directory: Path) -> dict[str, Path]:
    """Write certificates, and the keys of servers and CA with mode 0600. Returns name to path.

    ``domain-root.pem`` is what an EST client trusts, ``masa-tls-root.pem`` what a registrar elsewhere trusts
    on its way to our MASA; ``manufacturer-root.pem``, ``idevid-ca.pem``, ``masa.pem`` and ``masa-key.pem``
    have the names under which a factory line leaves them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    domain, maker = world.domain, world.manufacturer
    public = {
        ANCHORS: pem(domain.root.certificate),
        "domain-chain.pem": "".join(map(pem, domain.cacerts)),
        "registrar.pem": "".join(map(pem, domain.registrar.chain)),
        "manufacturer-root.pem": pem(maker.root),
        "idevid-ca.pem": pem(maker.idevid_ca),
        "masa.pem": "".join(map(pem, maker.masa.chain)),
        "masa-tls-root.pem": pem(world.masa_tls.chain[-1]),
    }
    private = {"registrar-key.pem": key_pem(domain.registrar), "masa-key.pem": key_pem(maker.masa)}
    written = {}
    for name, text in (public | private).items():
        written[name] = directory / name
        if name in private:
            written[name].touch(mode=0o600)
        written[name].write_text(text, encoding="ascii")
    return written


def write_device(world: World, directory: Path, serial_number: str) -> None:
    """A software device: ``SERIAL.pem`` and ``SERIAL-key.pem``. ConfigError without the IDevID CA's key."""
    device = world.manufacturer.device(serial_number, world.now())
    key = directory / f"{serial_number}-key.pem"
    key.touch(mode=0o600)
    key.write_text(key_pem(device), encoding="ascii")
    certificates = "".join(map(pem, device.chain))
    (directory / f"{serial_number}.pem").write_text(certificates, encoding="ascii")
