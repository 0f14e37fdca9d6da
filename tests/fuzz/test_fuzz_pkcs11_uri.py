"""Whatever stands where a PKCS#11 URI should, it is read and can be written again, or refused by name."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from effort import at_least
from holdfast.keys.pkcs11_uri import TokenFacts, parse
from holdfast.wire.errors import KeyStoreError

EXAMPLES = (Path(__file__).parent.parent / "vectors/pkcs11/rfc7512-3.txt").read_text().splitlines()
WORDS = (
    "pkcs11:", "?", ";", "&", "=", "%", "%00", "%C3", "%C3%A1", "token=", "id=", "type=private", "slot-id=",
    "library-version=", "pin-source=", "pin-value=", "module-path=", "module-name=", "file:", "|", "/", "..",
    "9" * 30, "1.2", "\0", "é", "\ud800", "x-vendor=",
)  # fmt: skip
FACTS = TokenFacts(token="gateway", serial="1")


def judge(text: str) -> bool:
    """Whether *text* was read. Anything but a KeyStoreError from here is a bug."""
    try:
        uri = parse(text)
    except KeyStoreError:
        return False
    again = parse(uri.text())
    assert again == uri
    assert again.matches_token(FACTS) == uri.matches_token(FACTS)
    assert uri.pin_file is None or uri.pin_file.startswith("/")
    assert uri.pin_value is None or uri.pin_source is None
    assert uri.module_path is None or uri.module_path.startswith("/")
    return True


@given(st.text() | st.lists(st.sampled_from(WORDS)).map(lambda w: "pkcs11:" + "".join(w)))
@settings(max_examples=at_least(1000))
def test_any_text(text: str) -> None:
    judge(text)


@given(st.sampled_from(EXAMPLES), st.randoms(use_true_random=False))
@settings(max_examples=at_least(1000))
def test_accidents_with_the_examples_of_the_rfc(text: str, chance: random.Random) -> None:
    for _ in range(chance.randint(0, 4)):
        at = chance.randint(0, len(text))
        cut = chance.randint(0, 3)
        text = text[:at] + chance.choice(WORDS) * chance.randint(0, 1) + text[at + cut :]
    judge(text)
    assert judge("pkcs11:object=my-pubkey;type=public")
