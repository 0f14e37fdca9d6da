"""What the schema cannot say about a configuration: files that must exist, fields that depend on others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from holdfast.host.config_acme import faults as acme_faults
from holdfast.host.config_cmc import faults as cmc_faults
from holdfast.host.config_formats import split_est_url
from holdfast.host.config_model import rung_names
from holdfast.host.config_scep import faults as scep_faults
from holdfast.host.config_shape import with_defaults
from holdfast.host.config_tokens import faults as token_faults
from holdfast.host.config_yaml import Document, Fault, KeyPath

_FILES: Final[tuple[KeyPath, ...]] = (
    ("idevid", "certificate", "file"),
    ("idevid", "chain-file"),
    ("manufacturer", "anchors"),
    ("manufacturer", "cloud-anchors"),
)
HOOK_SECONDS: Final = 600
"""Of all hooks of an identity together: a step is ended after 900 s, and hooks are not all that it does."""

_SECRETS: Final[tuple[KeyPath, ...]] = (
    ("keys", "auth-file"),
    ("keys", "owner-auth-file"),
    ("idevid", "auth-file"),
    ("proxy-credentials",),
)


class Rules:
    """The rules for *document*. Values at the *faulty* paths have been told of already and are left out."""

    def __init__(self, document: Document, base: Path, credentials: Path, faulty: frozenset[KeyPath]) -> None:
        self._document = document
        self._base = base
        self._credentials = credentials
        self._faulty = faulty

    def faults(self) -> Iterator[Fault]:
        """Every rule that does not hold."""
        for path in _FILES:
            yield from self.file(path, secret=False)
        for path in _SECRETS:
            yield from self.file(path, secret=True)
        yield from token_faults(self)
        yield from self._limits()
        yield from self._proxy()
        yield from self._cloud()
        yield from self._identities()

    def _proxy(self) -> Iterator[Fault]:
        named = self.get(("proxy",), str) or ""
        if self.get(("proxy-credentials",), str) is not None and not named.startswith("http://"):
            yield self.fault(("proxy-credentials",), "is for a proxy: http://...")

    def _limits(self) -> Iterator[Fault]:
        limits = with_defaults({"limits": self.get(("limits",), dict) or {}})["limits"]
        for name in ("connect-seconds", "read-seconds"):
            value, total = limits[name], limits["total-seconds"]
            if all(isinstance(n, int | float) for n in (value, total)) and value > total:
                yield self.fault(("limits", name), "must not be more than total-seconds")

    def _cloud(self) -> Iterator[Fault]:
        """The maker's registrar is trusted as a web server is, and by nobody's list but the maker's."""
        maker = self.get(("manufacturer",), dict) or {}
        for key, other in (("cloud-registrar", "cloud-anchors"), ("cloud-anchors", "cloud-registrar")):
            if key in maker and other not in maker:
                yield self.fault(("manufacturer", key), f"needs {other}")

    def _identities(self) -> Iterator[Fault]:
        seen: set[str | None] = set()
        for n in range(len(self.get(("identities",), list) or [])):
            name = self.get(("identities", n, "name"), str)
            if name is not None and name in seen:
                yield self.fault(("identities", n, "name"), "another identity has this name")
            seen.add(name)
            yield from self._protocols(("identities", n, "protocols"))
            yield from self._hooks(("identities", n, "deploy", "hooks"))

    def _protocols(self, path: KeyPath) -> Iterator[Fault]:
        rules: dict[str, Callable[[KeyPath], Iterator[Fault]]] = {
            "est": self._est,
            "cmp": self._cmp,
            "cmc": lambda where: cmc_faults(self, where),
            "scep": lambda where: scep_faults(self, where),
            "acme": lambda where: acme_faults(self, where),
        }
        rungs: list[tuple[KeyPath, str | None]] = []
        for n in range(len(self.get(path, list) or [])):
            for kind in self.get((*path, n), dict) or {}:
                if kind in rules:
                    yield from rules[kind]((*path, n, kind))
                    rungs.append(((*path, n, kind), self.get((*path, n, kind, "name"), str)))
        names = rung_names([(str(where[-1]), name) for where, name in rungs])
        for n, (where, _) in enumerate(rungs):
            if names[n] in names[:n]:
                yield self.fault((*where, "name"), f"{names[n]} is the name of another protocol here")

    def _hooks(self, path: KeyPath) -> Iterator[Fault]:
        """Each tells a unit or runs a command; a step has time for all of them."""
        total = 0.0
        for n, hook in enumerate(self.get(path, list) or []):
            if not isinstance(hook, dict):
                continue
            if ("unit" in hook) == ("command" in hook):
                yield self.fault((*path, n), "must have exactly one of unit, command")
            if "action" in hook and "unit" not in hook:
                yield self.fault((*path, n, "action"), "needs a unit")
            command = self.get((*path, n, "command", 0), str)
            if command is not None and not command.startswith("/"):
                yield self.fault((*path, n, "command", 0), "must be a path from the root (/...)")
            seconds = hook.get("timeout-seconds", 30)
            total += seconds if isinstance(seconds, int | float) else 0
        if total > HOOK_SECONDS:
            yield self.fault(path, f"all timeouts together must not be more than {HOOK_SECONDS} s")

    def _est(self, path: KeyPath) -> Iterator[Fault]:
        est = self.get(path, dict) or {}
        secrets = [k for k in ("password-file", "password-credential") if k in est]
        if len(secrets) > 1:
            yield self.fault((*path, secrets[1]), f"excludes {secrets[0]}")
        if "username" in est and not secrets:
            yield self.fault((*path, "username"), "needs a password-file or password-credential")
        if secrets and "username" not in est:
            yield self.fault((*path, secrets[0]), "needs a username")
        yield from self.file((*path, "password-file"), secret=True)
        yield from self.credential((*path, "password-credential"))
        url, label = self.get((*path, "url"), str), self.get((*path, "label"), str)
        if url is not None and label is not None and split_est_url(url)[1] not in {None, label}:
            yield self.fault((*path, "label"), "the url names another label")

    def _cmp(self, path: KeyPath) -> Iterator[Fault]:
        cmp = self.get(path, dict) or {}
        secrets = [k for k in ("secret-file", "secret-credential") if k in cmp]
        if len(secrets) > 1:
            yield self.fault((*path, secrets[1]), f"excludes {secrets[0]}")
        if "reference" in cmp and not secrets:
            yield self.fault((*path, "reference"), "needs a secret-file or secret-credential")
        if secrets and "reference" not in cmp:
            yield self.fault((*path, secrets[0]), "needs a reference")
        for key in ("mac", "hmac-sha1"):
            if key in cmp and not secrets:
                yield self.fault((*path, key), "needs a secret-file or secret-credential")
        yield from self.file((*path, "secret-file"), secret=True)
        yield from self.credential((*path, "secret-credential"))

    def credential(self, path: KeyPath) -> Iterator[Fault]:
        """The systemd credential that *path* names, if it names one, must be there."""
        name = self.get(path, str)
        if name is None:
            return
        try:
            there = (self._credentials / name).is_file()
        except OSError as error:  # that of a service whose user we are not
            yield self.fault(path, error.strerror or "cannot be read")
            return
        if not there:
            yield self.fault(path, f"no such credential in {self._credentials}")

    def file(self, path: KeyPath, *, secret: bool) -> Iterator[Fault]:
        """The file that *path* names, if it names one, must be readable, and a *secret* not by everybody."""
        name = self.get(path, str)
        if name is None:
            return
        file = self._base / name
        try:
            # Not only stat: it must be readable by us. O_NONBLOCK: a fifo must not hang us.
            fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            yield self.fault(path, f"{file}: {error.strerror}")
            return
        mode = os.fstat(fd).st_mode
        os.close(fd)
        if not stat.S_ISREG(mode):
            yield self.fault(path, f"{file}: not a regular file")
        elif secret and mode & 0o007:
            yield self.fault(path, f"{file}: open to every user of this host; chmod o= it")

    def get(self, path: KeyPath, kind: type[Any]) -> Any:
        """The value at *path* if it is there, of that *kind* and without fault; else None."""
        value = self._document.data
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value if isinstance(value, kind) and path not in self._faulty else None

    def fault(self, path: KeyPath, message: str) -> Fault:
        """A fault at *path*, with its line."""
        return Fault(self._document.line(path), path, message)
