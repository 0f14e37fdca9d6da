"""What a factory's manifest tells the MASA: which devices there are, and the IDevID of each."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from holdfast.wire import manifest
from holdfast.wire.errors import ConfigError

from .world import World

SIGNER = "line-signer.pem"
"""In the factory's directory: who signs its manifests."""


def take_in(world: World, der: bytes, signer: x509.Certificate) -> int:
    """Enter every device of the manifest *der* that *signer* signed; returns how many are new.

    All or none. Raises ConfigError ``sim.manifest`` if a serial number had another IDevID before, and the
    errors of :func:`holdfast.wire.manifest.decode`.
    """
    told = manifest.decode(der, signer)
    prints = {device.serial: manifest.fingerprint(device) for device in told.devices}
    for serial, found in prints.items():
        if world.idevids.get(serial, found) != found:
            raise ConfigError("sim.manifest", f"{serial!r} left the factory with another IDevID")
    new = [serial for serial in prints if serial not in world.ledger]
    for serial in new:
        world.sell(serial)
    world.idevids.update(prints)
    return len(new)


def load(world: World, path: Path, factory: Path) -> int:
    """Take in the manifest at *path* of the factory in the directory *factory*. Raises ConfigError
    for files that cannot be read, too."""
    try:
        signer = x509.load_pem_x509_certificate((factory / SIGNER).read_bytes())
        with path.open("rb") as file:
            der = file.read(manifest.LIMIT + 1)
    except (OSError, ValueError) as error:
        raise ConfigError("sim.manifest", f"{path}: {error}") from error
    return take_in(world, der, signer)
