"""All the ways in which this host can meet a challenge, as one."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from holdfast.host.acme.errors import SolverError
from holdfast.wire.acme.challenges import Task


class Way(Protocol):
    """One way to meet challenges of some kinds."""

    kinds: frozenset[str]

    def present(self, task: Task) -> None: ...

    def withdraw(self, task: Task) -> None: ...

    def close(self) -> None: ...


class Solvers:
    """Hands each task to the first of *ways* that knows its kind; :meth:`close` ends all of them."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = tuple(ways)

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset().union(*(way.kinds for way in self._ways))

    def present(self, task: Task) -> None:
        """Raises SolverError of the way, and ``acme.solver`` where there is none."""
        self._way(task).present(task)

    def withdraw(self, task: Task) -> None:
        self._way(task).withdraw(task)

    def close(self) -> None:
        for way in self._ways:
            way.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _way(self, task: Task) -> Way:
        for way in self._ways:
            if task.kind in way.kinds:
                return way
        raise SolverError("acme.solver", f"nothing here can meet {task.kind}")
