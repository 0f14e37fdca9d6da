"""From a promoted credential to programs that use it: place the files, then run the hooks.

``promoted -> files current -> hooks run``, each persisted. What is left is seen by comparing :func:`digest`
with what the record says was placed, so a power cut, a changed configuration and an anchor that the domain
replaced all lead to the same thing: it is done (again) until it worked.
"""

from __future__ import annotations

import hashlib
from typing import Final

from holdfast.host.config import DeploySettings, IdentitySettings
from holdfast.host.deploy import HookError, access, environment
from holdfast.keys.api import HasUri, HoldsCertificates, Key
from holdfast.life import events as ev
from holdfast.life.record import CredentialState, DeviceRecord, Identity
from holdfast.wire.errors import StateError
from holdfast.wire.model import Moment
from holdfast.worker.agenda import waiting
from holdfast.worker.certificates import certificates_of, load_chain
from holdfast.worker.ports import Environment
from holdfast.worker.setbacks import next_attempt, trouble

_NO_FILES: Final = -1


class Deployer:
    """Performs the effects of the identity table that other programs see. Methods return what happened and
    raise a HoldfastError for what went wrong."""

    def __init__(self, env: Environment, settings: IdentitySettings) -> None:
        self._env = env
        self._settings = settings

    def due(self, record: DeviceRecord, now: Moment) -> bool:
        """Whether something is left to do, and now is the time. Reads one link and touches no key.

        What was never tried does not wait for the schedule of something else: a mended configuration works
        at once.
        """
        entry = record.identity(self._settings.name)
        if entry.credential.state is not CredentialState.ACTIVE:
            return False
        wanted, deployment = digest(record, entry, self._settings.deploy), entry.deployment
        if wanted == deployment.placed and deployment.complete and self._current() == _generation(entry):
            return False
        return wanted not in {deployment.placed, deployment.tried} or not waiting(deployment.schedule, now)

    def pending(self, entry: Identity) -> bool:
        """Whether other programs may still use what came before the active credential of *entry*."""
        if entry.credential.state is not CredentialState.ACTIVE:
            return False
        return not entry.deployment.complete or self._current() != _generation(entry)

    def digest(self, record: DeviceRecord) -> str:
        """What is to be placed now."""
        return digest(record, record.identity(self._settings.name), self._settings.deploy)

    def stage(self, record: DeviceRecord, generation: int, chain: tuple[bytes, ...], key: Key) -> None:
        """Write the files of *generation* beside the current ones."""
        self._env.files(self._settings.name).stage(
            generation,
            load_chain(chain),
            certificates_of(record.domain.anchors),
            key.reference_pem(),
            access(self._settings.deploy),
            key_uri=key.uri if isinstance(key, HasUri) else None,
        )

    def place(self, record: DeviceRecord) -> ev.FilesPlaced:
        """Make the active credential current. Writes nothing if it is and its content is as wanted."""
        entry = record.identity(self._settings.name)
        credential, wanted = entry.credential, self.digest(record)
        anew = self._current() != credential.generation
        if anew or entry.deployment.placed != wanted:
            key = self._env.keys.load(credential.key)
            self.stage(record, credential.generation, credential.chain, key)
            if isinstance(self._env.keys, HoldsCertificates):
                self._env.keys.hold_certificate(credential.key, load_chain(credential.chain)[0])
            self._env.files(self._settings.name).promote(credential.generation)
        directory = self._env.files(self._settings.name).current_directory.parent.parent
        return ev.FilesPlaced(wanted, anew, str(directory))

    def run_hook(
        self, record: DeviceRecord, number: int, now: Moment
    ) -> ev.HookRan | ev.HookFailed | ev.HooksEnded:
        """Run the first hook from *number* on that did not run since the files were placed."""
        entry = record.identity(self._settings.name)
        hooks, ran = self._settings.deploy.hooks, entry.deployment.hooks
        left = next((n for n in range(number, len(hooks)) if n not in ran), None)
        if left is None:
            return ev.HooksEnded(complete=all(n in ran for n in range(len(hooks))))
        directory = self._env.files(self._settings.name).current_directory
        try:
            self._env.run_hook(hooks[left], environment(entry.name, entry.credential.generation, directory))
        except HookError as error:
            due = next_attempt(entry.deployment.schedule, error, now, self._env.random)
            return ev.HookFailed(left, trouble(error, now), due)
        return ev.HookRan(left)

    def _current(self) -> int | None:
        try:
            return self._env.files(self._settings.name).current()
        except StateError:
            return _NO_FILES  # placing them will say what is wrong


def digest(record: DeviceRecord, entry: Identity, settings: DeploySettings) -> str:
    """Names everything that other programs see of *entry*: another digest is another deployment."""
    anchors = tuple(a.certificate for a in record.domain.anchors)
    parts = (
        entry.credential.key.encode(),
        str(entry.credential.generation).encode(),
        repr(settings).encode(),
        *entry.credential.chain,
        b"anchors",
        *anchors,
    )
    return hashlib.sha256(b"".join(len(p).to_bytes(4, "big") + p for p in parts)).hexdigest()[:32]


def _generation(entry: Identity) -> int:
    return entry.credential.generation
