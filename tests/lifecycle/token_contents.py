"""What a token holds, asked past the agent."""

from __future__ import annotations

from pathlib import Path

import pkcs11
from pkcs11 import Attribute


def objects_on(module: Path, label: str, pin: str) -> list[tuple[str, str, bytes]]:
    """Class, label and id of every object on the token *label*, private ones included."""
    library = pkcs11.lib(str(module))
    try:
        with library.get_token(token_label=label).open(user_pin=pin) as session:
            return sorted(
                (found.object_class.name, found[Attribute.LABEL], found[Attribute.ID])
                for found in session.get_objects()
            )
    finally:
        library.finalize()
