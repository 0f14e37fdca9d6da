"""Our domain's registrar is not where it was: find it again, without asking anew whose device this is.

The voucher has said whose it is, so what is found must show a certificate under the anchors that the domain
has given us since. It is a place that is sought and no owner: whoever else answers is refused, and nothing of
what we hold is given up for it.
"""

from __future__ import annotations

from holdfast.life import events as ev
from holdfast.life.record import DeviceRecord
from holdfast.life.search import REST, STRANGER_REST, Candidate, Source, next_up
from holdfast.wire.discovery.announced import Role
from holdfast.wire.errors import HoldfastError, TransportError, TrustError
from holdfast.wire.model import Moment
from holdfast.worker.bootstrap import factory_client
from holdfast.worker.links import Connection, Endpoint, domain_ground
from holdfast.worker.ports import Environment
from holdfast.worker.seeking import listen
from holdfast.worker.setbacks import is_of_time, lies, trouble


def may_have_moved(record: DeviceRecord, error: HoldfastError, now: Moment, choices: int) -> bool:
    """Whether *error*, met at the registrar, is reason to look for it elsewhere. *choices*: how many
    registrars are configured, or 2 where the network is searched."""
    domain = record.domain
    if choices < 2:
        return False
    if isinstance(error, TransportError):
        return domain.sought is None or abs(now.now - domain.sought) >= REST
    if not (isinstance(error, TrustError) and error.code.startswith("chain.")) or is_of_time(error):
        return False
    return domain.doubted is None or abs(now.now - domain.doubted) >= STRANGER_REST


class Relocation:
    """Performs the effects of a vouched domain. Each method returns what happened."""

    def __init__(self, env: Environment, connection: Connection) -> None:
        self._env = env
        self._connection = connection

    def seek(self, record: DeviceRecord, now: Moment) -> ev.CandidatesFound:
        """Search as at first, for everything but the maker's registrar: that one could only say whose device
        this is. Without ``discovery`` the configured registrars are all there is."""
        self._connection.close()
        settings = self._env.settings
        if settings.discovery is None:
            listed = (r for r in settings.registrars if r != record.domain.registrar)
            return ev.CandidatesFound(tuple(Candidate(r, Role.REGISTRAR, Source.LIST) for r in listed))
        order = tuple(each for each in settings.discovery.order if each is not Source.CLOUD)
        return listen(self._env, record, order, settings.discovery.listen_seconds, now)

    def meet(self, record: DeviceRecord, now: Moment) -> ev.DomainEvent:
        """Connect to the next place that was found, as the IDevID, and let the domain's anchors judge."""
        candidate = next_up(record.search)
        if candidate is None:
            return ev.RegistrarFound(record.domain.registrar)
        discovery = self._env.settings.discovery
        patience = None if discovery is None else discovery.progress_seconds
        try:
            self._connection.anchored(
                Endpoint.parse(candidate.endpoint),
                factory_client(self._env.factory()),
                domain_ground(record.domain),
                now,
                patience=patience,
            )
        except HoldfastError as error:
            self._connection.close()
            left = len(record.search.waiting) - (record.search.trying is None)
            return ev.CandidateRefused(trouble(error, now), lies(error), last=left < 1)
        return ev.RegistrarFound(candidate.endpoint)
