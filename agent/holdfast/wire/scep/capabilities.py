"""GetCACaps (RFC 8894 §3.5): what a server says it can, read as leniently as the standard asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from holdfast.wire.model import HttpResponse

_LIMIT: Final = 16_384
_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Announced keywords in lower case. Nothing announced means: a server from before there were any."""

    keywords: frozenset[str] = frozenset()

    def __contains__(self, keyword: str) -> bool:
        return keyword.lower() in self.keywords

    @property
    def standard(self) -> bool:
        """Everything that RFC 8894 makes mandatory: AES, SHA-256 and POST."""
        return "scepstandard" in self.keywords

    @property
    def post(self) -> bool:
        return self.standard or "postpkioperation" in self.keywords

    @property
    def renewal(self) -> bool:
        return "renewal" in self.keywords

    @property
    def next_ca(self) -> bool:
        return "getnextcacert" in self.keywords

    @property
    def aes(self) -> bool:
        """Whether AES may be used: announced, or not excluded by announcing triple DES alone."""
        return self.standard or "aes" in self.keywords or "des3" not in self.keywords

    @property
    def sha2(self) -> bool:
        """Whether SHA-256 may be used: announced, or not excluded by announcing SHA-1 alone."""
        announced = {"sha-256", "sha-512", "sha256", "sha512"} & self.keywords
        return self.standard or bool(announced) or not {"sha-1", "sha1"} & self.keywords


def read_capabilities(resp: HttpResponse) -> Capabilities:
    """Any order, any case, any line end, any media type; unknown words and empty lines count for nothing.
    An error status means that nothing is announced (§3.5.2)."""
    if resp.status != 200:
        return Capabilities()
    lines = resp.body[:_LIMIT].decode("latin-1").replace("\r", "\n").split("\n")
    words = (line.strip().lower() for line in lines)
    return Capabilities(frozenset([word for word in words if 0 < len(word) <= 64][:_MOST]))
