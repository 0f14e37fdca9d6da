"""The ``format`` words of the configuration's schema: addresses, URLs, paths and templates.

Each function returns the value in its one normal form and raises ValueError with a text for the operator.
No text repeats the value, which may hold a misplaced secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, urlsplit

from holdfast.host.config_tokens import object_uri, token_uri
from holdfast.wire.cmc.site import DEFAULT_PATH as FULLCMC
from holdfast.wire.scep.settings import DEFAULT_PATH

_HOST: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_LABEL: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_FIELD: Final = re.compile(r"\{(serial|mac|hostname)\}")


def registrar(text: str) -> str:
    """``host:port``, ``[v6]:port`` or an https URL without a path, as ``host:port``."""
    if "://" not in text:
        parts = _split(f"https://{text}")
        if _port(parts) is None:
            raise ValueError("must be host:port, [IPv6]:port or an https URL")
    else:
        parts = _https(text)
    if parts.path not in {"", "/"}:
        raise ValueError("must have no path: its paths are fixed by RFC 8995")
    return _authority(parts)


def proxy(text: str) -> str:
    """``http://host:port`` or ``socks5://host:port``."""
    parts = _split(text)
    if parts.scheme not in {"http", "socks5"} or _port(parts) is None or parts.path not in {"", "/"}:
        raise ValueError("must be http://host:port or socks5://host:port")
    return f"{parts.scheme}://{_authority(parts)}"


def https_url(text: str) -> str:
    """``https://host[:port][/path]``."""
    parts = _https(text)
    return f"https://{_authority(parts)}{parts.path}"


def est_url(text: str) -> str:
    """``https://host:port/.well-known/est[/label]``; see :func:`split_est_url`."""
    split_est_url(text)
    return text


def split_est_url(text: str) -> tuple[str, str | None]:
    """Origin and label of an EST URL (RFC 7030 §3.2.2)."""
    parts = _https(text)
    wrong = ValueError("must be https://host[:port]/.well-known/est, with at most one label after it")
    if parts.path in {"", "/"}:
        return f"https://{_authority(parts)}", None
    match parts.path.rstrip("/").split("/"):
        case ["", ".well-known", "est"]:
            label = None
        case ["", ".well-known", "est", str(label)] if _LABEL.fullmatch(label):
            pass
        case _:
            raise wrong
    return f"https://{_authority(parts)}", label


def cmp_url(text: str) -> str:
    """``http[s]://host[:port][/path]``; see :func:`split_cmp_url`."""
    split_cmp_url(text)
    return text


def split_cmp_url(text: str) -> tuple[str, str | None]:
    """Origin and path of a CMP URL; the path is None where the well-known one is meant (RFC 9811 §3.4)."""
    parts = _split(text)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must start with http:// or https://")
    return f"{parts.scheme}://{_authority(parts)}", None if parts.path in {"", "/"} else parts.path


def cmc_url(text: str) -> str:
    """``http[s]://host[:port][/path]``; see :func:`split_cmc_url`."""
    split_cmc_url(text)
    return text


def split_cmc_url(text: str) -> tuple[str, str]:
    """Origin and path of a CMC URL. CMC protects its messages itself, so it may be plain HTTP, but EST may
    not (RFC 7030 §3.3). Without a path it is EST's /fullcmc."""
    parts = _split(text)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must start with http:// or https://")
    where = FULLCMC if parts.path in {"", "/"} else parts.path
    if parts.scheme == "http" and where.startswith("/.well-known/est"):
        raise ValueError("EST is https:// alone; another server's CMC needs its path")
    return f"{parts.scheme}://{_authority(parts)}", where


def scep_url(text: str) -> str:
    """``http[s]://host[:port]/path``; see :func:`split_scep_url`."""
    split_scep_url(text)
    return text


def split_scep_url(text: str) -> tuple[str, str]:
    """Origin and path of a SCEP URL. SCEP protects its messages itself, so it may be plain HTTP
    (RFC 8894 §4.1). Without a path it is the customary one."""
    parts = _split(text)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must start with http:// or https://")
    where = DEFAULT_PATH if parts.path in {"", "/"} else parts.path
    return f"{parts.scheme}://{_authority(parts)}", where


def acme_url(text: str) -> str:
    """The URL of an ACME directory."""
    split_acme_url(text)
    return text


def split_acme_url(text: str) -> tuple[str, str]:
    """Origin and path of an ACME directory (RFC 8555 §6.1: https only)."""
    parts = _split(text)
    if parts.scheme != "https":
        raise ValueError("must start with https://")
    if parts.path in {"", "/"}:
        raise ValueError("needs the path of the directory")
    return f"https://{_authority(parts)}", parts.path


def path(text: str) -> str:
    """A path; a relative one starts at the configuration's directory."""
    if not text or "\0" in text or len(text) > 4096:
        raise ValueError("must be a path")
    return text


def absolute_path(text: str) -> str:
    """A path from the root, without ``..``."""
    if not path(text).startswith("/") or ".." in PurePosixPath(text).parts:
        raise ValueError("must be a path from the root (/...), without ..")
    return text


def template(text: str) -> str:
    """Text in which only ``{serial}``, ``{mac}`` and ``{hostname}`` are replaced."""
    rest = _FIELD.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError("only {serial}, {mac} and {hostname} can stand in braces")
    if not text.isprintable():
        raise ValueError("must be printable text")
    return text


def dns_template(text: str) -> str:
    """A host name, perhaps with facts of the device in it."""
    if not _HOST.fullmatch(_FIELD.sub("x", template(text)).removeprefix("*.")):
        raise ValueError("must be a host name (ASCII; an international one in its xn-- form)")
    return text


def uri_template(text: str) -> str:
    """An absolute URI, perhaps with facts of the device in it."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[!#-;=?-Z\[\]_a-z~%]+", _FIELD.sub("x", template(text))):
        raise ValueError("must be a URI with its scheme (such as urn:...)")
    return text


def email_template(text: str) -> str:
    """A mail address, perhaps with facts of the device in it."""
    local, _, host = _FIELD.sub("x", template(text)).rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}", local) or not _HOST.fullmatch(host):
        raise ValueError("must be a mail address (ASCII)")
    return text


def address(text: str) -> str:
    """An IP address."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None


def _https(text: str) -> SplitResult:
    parts = _split(text)
    if parts.scheme != "https":
        raise ValueError("must start with https://")
    return parts


def _split(text: str) -> SplitResult:
    if not re.fullmatch(r"[!-~]{1,2000}", text):
        raise ValueError("must be plain ASCII without spaces")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        _port(parts)
    except ValueError:
        raise ValueError("host or port is malformed") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and no password")
    if parts.query or parts.fragment:
        raise ValueError("must have no query and no fragment")
    if not (_is_v6(host) if "[" in parts.netloc else _HOST.fullmatch(host)):
        raise ValueError("host is malformed (IPv6 stands in brackets)")
    return parts


def _port(parts: SplitResult) -> int | None:
    if parts.port == 0:
        raise ValueError("port 0")
    return parts.port


def _is_v6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _authority(parts: SplitResult) -> str:
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


FORMATS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "registrar": registrar,
        "proxy": proxy,
        "https-url": https_url,
        "est-url": est_url,
        "cmp-url": cmp_url,
        "cmc-url": cmc_url,
        "scep-url": scep_url,
        "acme-url": acme_url,
        "path": path,
        "absolute-path": absolute_path,
        "template": template,
        "dns-template": dns_template,
        "uri-template": uri_template,
        "token-uri": token_uri,
        "private-key-uri": object_uri,
        "email-template": email_template,
        "address": address,
    }
)
