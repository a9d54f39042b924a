"""What a part of the local stack is, as data: how it starts, how one knows that it answers, how it stops."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from connectors.endpoints import Endpoints


class NotReady(Exception):
    """A readiness check's answer "not yet", with what was seen."""


@dataclass(frozen=True)
class Component:
    """One process of the stack (`service`) or one command that must succeed before others start (`step`).

    `command` and `environment` are asked anew at every start. `prepare` runs before each start, in a thread, and
    must be idempotent (write configuration, format a disk). `ready` runs in a thread, blocks for at most a few
    seconds, and raises `NotReady` or an OSError until the process does its real work; a step is ready when it has
    ended with exit code 0.
    """

    name: str
    command: Callable[[Endpoints], list[str]]
    ready: Callable[[Endpoints], None] | None = None
    needs: tuple[str, ...] = ()
    #: Started with it but not waited for: the command itself waits for them, and has something to do meanwhile.
    alongside: tuple[str, ...] = ()
    kind: Literal["service", "step"] = "service"
    ports: tuple[str, ...] = ()
    environment: Callable[[Endpoints], Mapping[str, str]] = field(default=lambda _: {})
    prepare: Callable[[Endpoints], None] | None = None
    #: How far it yields to the others when no core is free (nice(1)). What the player, the ad server and their counters
    #: wait for has 0.
    niceness: int = 0
    #: Names (the first 15 letters) of threads that yield to its other ones as well. Linux only.
    yielding_threads: tuple[str, ...] = ()
    #: Services whose restart loses this step's work: the step runs again once they are back.
    again_after: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    ready_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if (self.ready is None) != (self.kind == "step"):
            raise ValueError(f"{self.name}: a service has a readiness check, a step has none")


class UnknownComponent(ValueError):
    """A name that no component has."""


def with_needs(components: Mapping[str, Component], names: Iterable[str]) -> list[str]:
    """The named components and all that they need, each after what it needs.

    Errors: UnknownComponent; ValueError for a circle.

    Example:
        >>> a = Component("a", lambda e: [], kind="step")
        >>> b = Component("b", lambda e: [], kind="step", needs=("a",))
        >>> with_needs({"a": a, "b": b}, ["b"])
        ['a', 'b']
    """
    ordered: list[str] = []
    open_names: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name in open_names:
            raise ValueError(f"components need each other in a circle: {' -> '.join([*open_names, name])}")
        if name not in components:
            raise UnknownComponent(f"no component {name!r}; there are: {', '.join(components)}")
        open_names.append(name)
        for needed in (*components[name].needs, *components[name].alongside):
            visit(needed)
        open_names.pop()
        ordered.append(name)

    for name in names:
        visit(name)
    return ordered
