"""``holdfastd``: the resident process (ADR 18). It waits, starts workers, answers, and feeds the watchdog.

Standard library only, and of that nothing heavy: what needs a certificate, a key or the configuration's text
is done by a worker, ``holdfast step``, which exits.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final, Self

from holdfast.control import Control
from holdfast.host.clockwatch import ClockWatch
from holdfast.host.journal import Log, log_for
from holdfast.host.netwatch import NetWatch
from holdfast.host.notify import Notifier, monotonic_usec, watchdog_seconds
from holdfast.resident.agent import Agent, Starter, Want
from holdfast.resident.attempt import Attempt, Result
from holdfast.resident.messages import CLOCK_SET, NETWORK_UP, RELOADED, STARTED, STOPPED
from holdfast.resident.metrics import Metrics
from holdfast.resident.publish import Publisher
from holdfast.resident.reports import Settings
from holdfast.resident.varlink import Server, inherited

DEFAULT_CONFIG: Final = "/etc/holdfast/holdfast.yaml"
USAGE: Final = "usage: holdfastd [-c CONFIG] [--socket PATH]"

SETTLE_SECONDS: Final = 2.0
"""From the first sign of a network to the step: addresses, routes and name servers come one by one."""

STOP_SECONDS: Final = 5
EXTEND_SECONDS: Final = 120
"""A reload may have to wait for the worker that runs; said again whenever the watchdog is fed."""

_MICROSECONDS: Final = 1_000_000
_NOT_FOR_WORKERS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


class Daemon:
    """Everything of one process, joined by one loop."""

    def __init__(self, agent: Agent, notifier: Notifier, log: Log, watchdog: float | None) -> None:
        """*watchdog*: seconds after which the service manager takes us for hung; None if never."""
        self._agent = agent
        self._notifier = notifier
        self._log = log
        self._ping = watchdog / 2 if watchdog is not None else math.inf
        self._ping_at = 0.0 if watchdog is not None else math.inf
        self._selector = selectors.DefaultSelector()
        self._listening: tuple[int, ...] = ()
        self._network_at = math.inf
        self._reload_after: int | None = None
        self._status = ""
        self._server: Server | None = None
        self._control: Control | None = None
        self._publisher = Publisher(Metrics(), log, self._selector)
        agent.configured.append(self._publisher.configured)
        agent.configured.append(self._configured)
        agent.finished.append(self._publisher.finished)
        agent.finished.append(self._finished)

    def serve(self, control: Control, listener: socket.socket) -> None:
        """Answer on *listener*."""
        self._control = control
        self._server = Server(listener, self._selector, control.handlers(), time.monotonic)

    def watch(self, clock: ClockWatch, network: NetWatch) -> None:
        """Act when the clock is set and when the network comes up."""
        if clock.descriptor is not None:
            self._selector.register(clock.descriptor, selectors.EVENT_READ, lambda _: self._clock(clock))
        if network.descriptor is not None:
            self._selector.register(network.descriptor, selectors.EVENT_READ, lambda _: self._net(network))

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        with _Signals() as signals:
            self._selector.register(signals.descriptor, selectors.EVENT_READ, lambda _: self._heed(signals))
            self._notifier.tell(READY=1, STATUS="starting")
            self._log.event(STARTED, "started")
            while not self._agent.stopped:
                self._turn()
            self._selector.unregister(signals.descriptor)
        self._log.event(STOPPED, "stopped")

    def close(self) -> None:
        """Leave nothing behind."""
        if self._agent.attempt is not None:
            self._agent.attempt.close()
        if self._server is not None:
            self._server.close()
        self._publisher.close()
        self._selector.close()
        self._notifier.close()

    def reload(self) -> None:
        """The next worker reads the configuration anew, as each does; tell the manager when it has."""
        if self._reload_after is None:
            self._notifier.tell(
                RELOADING=1, MONOTONIC_USEC=monotonic_usec(), STATUS="reading the configuration"
            )
        self._reload_after = self._agent.attempts  # one that runs already has read the old one
        self._agent.ask(Want(hasten=True))  # another server may be there than the one that was not

    # --- one turn of the loop ------------------------------------------------------------------------

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._network_at:
            self._network_at = math.inf
            self._log.event(NETWORK_UP, "the network came up")
            self._agent.ask(Want(hasten=True))
        self._agent.tick(now)
        self._hear_worker()  # at once: the numbers of closed descriptors are soon others'
        if self._control is not None and self._server is not None:
            self._control.tick()
            self._server.tick(now)
        if self._publisher.endpoint is not None:
            self._publisher.endpoint.tick(now)
        self._tell_status(now)
        self._feed(now)
        for key, mask in self._selector.select(max(0.0, self._next_at() - time.monotonic())):
            if self._selector.get_map().get(key.fd) is key:  # an earlier one may have closed it
                key.data(mask)

    def _next_at(self) -> float:
        parts = [self._agent.next_at(), self._network_at, self._ping_at]
        if self._server is not None:
            parts.append(self._server.next_at())
        if self._publisher.endpoint is not None:
            parts.append(self._publisher.endpoint.next_at())
        # epoll takes no infinity, and an hour too early costs nothing.
        return min(*parts, time.monotonic() + 3600)

    def _feed(self, now: float) -> None:
        """Only here, once a turn at most: a loop that does not come round starves, as it should."""
        if now >= self._ping_at:
            if self._agent.healthy(now):
                self._notifier.tell(WATCHDOG=1)
                if self._reload_after is not None:
                    self._notifier.tell(EXTEND_TIMEOUT_USEC=EXTEND_SECONDS * _MICROSECONDS)
            self._ping_at = now + self._ping

    def _hear_worker(self) -> None:
        wanted = self._agent.attempt.descriptors if self._agent.attempt is not None else ()
        if wanted == self._listening:
            return
        for descriptor in self._listening:
            self._selector.unregister(descriptor)
        for descriptor in wanted:
            self._selector.register(descriptor, selectors.EVENT_READ, lambda _: None)
        self._listening = wanted

    def _tell_status(self, now: float) -> None:
        text = self._in_words(now)
        if text != self._status:
            self._status = text
            self._notifier.tell(STATUS=text)

    def _in_words(self, now: float) -> str:
        agent = self._agent
        if agent.progress is not None:
            return f"{agent.progress.doing} {agent.progress.identity}".rstrip()
        if agent.attempt is not None:
            return self._status
        state = agent.report.state if agent.report else "no step has been made yet"
        if agent.refusal is not None:
            return f"{state}; {agent.refusal.trouble.code}: {agent.refusal.trouble.detail}"
        trouble = f"; {agent.report.trouble.code}" if agent.report and agent.report.trouble else ""
        return f"{state}{trouble}; next step {_date(agent.seconds_to_due(now))}"

    # --- what happens --------------------------------------------------------------------------------

    def _heed(self, signals: _Signals) -> None:
        for number in signals.taken():
            if number == signal.SIGHUP:
                self.reload()
            elif number in {signal.SIGTERM, signal.SIGINT}:
                self._notifier.tell(
                    STOPPING=1, STATUS="stopping", EXTEND_TIMEOUT_USEC=STOP_SECONDS * _MICROSECONDS
                )
                self._agent.stop(time.monotonic())

    def _clock(self, clock: ClockWatch) -> None:
        if clock.was_set():
            self._log.event(CLOCK_SET, "the clock was set: due times are computed anew")
            self._agent.ask(Want())

    def _net(self, network: NetWatch) -> None:
        if network.came_up() and self._network_at == math.inf:
            self._network_at = time.monotonic() + SETTLE_SECONDS

    def _configured(self, _settings: Settings) -> None:
        if self._reloaded():
            self._log.event(RELOADED, "the configuration was read anew")

    def _finished(self, _result: Result) -> None:
        self._reloaded()  # a refused one as well: the one before stays in force, and the log says why

    def _reloaded(self) -> bool:
        if self._reload_after is None or self._agent.attempts <= self._reload_after:
            return False
        self._reload_after = None
        self._notifier.tell(READY=1)
        return True


class _Signals:
    """A pipe that Python writes a signal's number into: no lock that a handler could find taken."""

    _NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __enter__(self) -> Self:
        self.descriptor, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._handlers = [signal.signal(number, lambda *_: None) for number in self._NUMBERS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self._NUMBERS, self._handlers, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.descriptor)
        os.close(self._writing)

    def taken(self) -> bytes:
        """The numbers of the signals that came since."""
        try:
            return os.read(self.descriptor, 256)
        except BlockingIOError:
            return b""


def starter(config: str, environ: Mapping[str, str]) -> Starter:
    """Workers for *config*. They see nothing of what the service manager told this process alone."""
    inherit = {name: value for name, value in environ.items() if name not in _NOT_FOR_WORKERS}
    # -P: nothing is imported from the directory that we happen to be in.
    command = [
        sys.executable,
        "-P",
        "-m",
        "holdfast.cli.main",
        "--config",
        config,
        "step",
        "--json",
        "--stream",
    ]

    def start(want: Want, now: float, longest: float) -> Attempt:
        renew = [f"--renew={name}" for name in sorted(want.renew)]
        hasten = ["--hasten"] if want.hasten else []
        return Attempt([*command, *renew, *hasten], inherit, now, longest)

    return start


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + seconds))


def listen(path: str) -> socket.socket:
    """Our own socket at *path*, for who runs without a service manager. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _clear(path)
        listener.bind(path)
        os.chmod(path, 0o660)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _clear(path: str) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError if somebody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def _options(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Configuration and socket path; None if *arguments* are not as USAGE says."""
    config, path = environ.get("HOLDFAST_CONFIG", DEFAULT_CONFIG), ""
    rest = list(arguments)
    while rest:
        name, _, value = rest.pop(0).partition("=")
        if name not in {"-c", "--config", "--socket"} or not (value or rest):
            return None
        value = value or rest.pop(0)
        if name == "--socket":
            path = value
        else:
            config = value
    return config, path


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 after SIGTERM or SIGINT, 2 for arguments that it does not know, 1 if it cannot listen."""
    options = _options(sys.argv[1:] if arguments is None else arguments, os.environ)
    if options is None:
        sys.stderr.write(USAGE + "\n")
        return 2
    config, path = options
    # systemd's socket is root's to use and its group's to read; our own is also ours.
    listeners, changers = inherited(os.environ), {0}
    if path and not listeners:
        changers.add(os.geteuid())
        try:
            listeners.append(listen(path))
        except OSError as error:
            sys.stderr.write(f"holdfastd: {path}: {error.strerror}\n")
            return 1
    log = log_for(os.environ)
    agent = Agent(starter(config, os.environ), log)
    daemon = Daemon(agent, Notifier(os.environ.get("NOTIFY_SOCKET")), log, watchdog_seconds(os.environ))
    with ClockWatch() as clock, NetWatch() as network:
        try:
            for listener in listeners:
                daemon.serve(Control(agent, log, daemon.reload, changers=frozenset(changers)), listener)
            daemon.watch(clock, network)
            daemon.run()
        finally:
            daemon.close()
            if path:
                os.unlink(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
