"""`headwater up`, `down`, `status` and `logs`: the local stack."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.exits import Exit, fail, guarded

if TYPE_CHECKING:
    from rich.table import Table

    from infra.local.state import ComponentState, StackState

Only = Annotated[
    str | None, typer.Option("--only", help="These components, separated by commas, and what they need.", metavar="A,B")
]
_STYLES = {"ready": "green", "done": "green", "failed": "red", "backing-off": "red", "starting": "yellow"}


def _split(only: str | None) -> list[str] | None:
    return None if only is None else [name.strip() for name in only.split(",") if name.strip()]


@guarded
def up(
    only: Only = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Give up after so many seconds.")] = 600.0,
    publishers: Annotated[
        int | None, typer.Option(help="So many publishers share the partitions.", min=1, max=4, show_default="1")
    ] = None,
) -> None:
    """Start the local stack and wait until everything answers. Does nothing for what already runs."""
    from connectors.endpoints import endpoints
    from infra.local.control import StartFailed, tail, up
    from infra.local.stack import COMPONENTS, DEFAULT, with_publishers

    where = endpoints()
    names: Sequence[str] = _split(only) or DEFAULT
    if publishers is not None:
        names = with_publishers(names, publishers)
    began = time.monotonic()
    show = progress()
    try:
        with show:
            state = up(where, COMPONENTS, names, show.update, timeout_s)
    except StartFailed as failure:
        if failure.component:
            path = where.home / "logs" / f"{failure.component}.log"
            print(f"--- end of {path}", *tail(path, 25), "---", sep="\n", file=sys.stderr)
        raise
    memory_gb = sum(_rss_bytes(row) for row in state.components.values()) / 1e9
    print(
        f"up after {time.monotonic() - began:.0f} s: {len(state.components)} components, {memory_gb:.1f} GB; "
        f"data and logs in {where.home}"
    )
    if "flink-jobmanager" in state.components:
        print(f"  Flink      {where.flink_rest_url}")
    if "reporting" in state.components:
        print(f"  reporting  {where.reporting_url}/docs")
    if "mlflow" in state.components:
        print(f"  MLflow     {where.mlflow_url}")


@guarded
def down(
    only: Annotated[
        str | None, typer.Option("--only", help="Stop these alone; what needs them runs on.", metavar="A,B")
    ] = None,
    wipe: Annotated[bool, typer.Option("--wipe", help="Also remove all local data.")] = False,
) -> None:
    """Stop the local stack, in reverse order. Data stays, unless --wipe."""
    from connectors.endpoints import endpoints
    from infra.local import control
    from infra.local.component import UnknownComponent
    from infra.local.stack import COMPONENTS

    where = endpoints()
    names = _split(only)
    unknown = set(names or ()) - COMPONENTS.keys()
    if unknown:
        raise UnknownComponent(f"no component {', '.join(sorted(unknown))}; there are: {', '.join(COMPONENTS)}")
    if names and wipe:
        raise fail("--wipe removes the data of all components: it does not go with --only", Exit.MISUSED)
    control.down(where, names)
    if wipe:
        control.wipe(where)
    print("stopped" + (", data removed" if wipe else ""))


@guarded
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What runs, where, since when, with how much memory. Exit code 1 unless all that is wanted is ready."""
    from connectors.endpoints import endpoints
    from infra.local.control import running
    from infra.local.state import SETTLED

    where = endpoints()
    state = running(where)
    rows = state.components if state else {}
    if as_json:
        out = {name: {**vars(row), "rss_bytes": _rss_bytes(row)} for name, row in rows.items()}
        print(json.dumps({"running": state is not None, "home": str(where.home), "components": out}, indent=2))
    elif state is None:
        print(f"not running (home {where.home}, ports from {where.port_base}); `headwater up` starts it")
    else:
        from rich.console import Console

        Console().print(_table(state, list(rows)))
        print(f"memory of all: {sum(map(_rss_bytes, rows.values())) / 1e9:.2f} GB; home {where.home}")
    if state is None or any(row.state not in (*SETTLED, "stopped") for row in rows.values()):
        raise typer.Exit(Exit.CHECK_FAILED)


@guarded
def logs(
    name: Annotated[str, typer.Argument(help="A component, or `supervisor`.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 50,
) -> None:
    """A component's log."""
    from connectors.endpoints import endpoints
    from infra.local.control import tail

    folder = endpoints().home / "logs"
    path = folder / f"{name}.log"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.log"))) or "none yet"
        raise fail(f"no log of {name!r} in {folder}; there are: {known}", Exit.MISUSED)
    with path.open(errors="replace") as file:
        position = file.seek(0, 2)
        for line in tail(path, lines):
            print(line)
        while follow:
            if path.stat().st_size < position:  # cut by the supervisor
                file.seek(0)
            for line in file:
                print(line, end="", flush=True)
            position = file.tell()
            time.sleep(0.3)


def _rss_bytes(row: ComponentState) -> int:
    """Resident memory of a component with its child processes; 0 when it does not run."""
    import psutil

    if row.pid is None:
        return 0
    try:
        process = psutil.Process(row.pid)
        return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def _since(row: ComponentState, started_ms: int) -> str:
    if row.state in ("ready", "done") and row.ready_ms:
        return datetime.fromtimestamp(row.ready_ms / 1000).astimezone().strftime("%H:%M:%S")
    return f"{(time.time() * 1000 - started_ms) / 1000:.0f} s" if row.state == "starting" else ""


def _table(state: StackState, names: list[str], *, memory: bool = True) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("component", "state", "pid", "port", *(("MB",) if memory else ()), "restarts", "since", ""):
        numeric = column in ("pid", "port", "MB", "restarts")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=bool(column))
    for name in names:
        row = state.components.get(name)
        if row is None:
            continue
        cells = [name, f"[{_STYLES.get(row.state, 'dim')}]{row.state}[/]", str(row.pid or ""), str(row.port or "")]
        if memory:
            cells.append(f"{_rss_bytes(row) / 1e6:.0f}" if row.pid else "")
        table.add_row(*cells, str(row.restarts or ""), _since(row, row.started_ms or 0), row.error[:80])
    return table


def progress() -> _PlainProgress | _LiveProgress:
    """What shows the stack's parts while they start: a context whose `update` is `control.up`'s `on_change`."""
    return _LiveProgress() if sys.stderr.isatty() else _PlainProgress()


class _PlainProgress:
    """One line for each change of state: for logs and pipes."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._began = time.monotonic()

    def __enter__(self) -> _PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, state: StackState, names: list[str]) -> None:
        for name in names:
            row = state.components.get(name)
            if row and row.state != "waiting" and self._last.get(name) != row.state:
                self._last[name] = row.state
                detail = f": {row.error}" if row.error else ""
                print(
                    f"{time.monotonic() - self._began:6.1f} s  {name} {row.state}{detail}", file=sys.stderr, flush=True
                )


class _LiveProgress:
    """The table of all components, redrawn in place: for terminals."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=5, transient=True)

    def __enter__(self) -> _LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, state: StackState, names: list[str]) -> None:
        self._live.update(_table(state, names, memory=False))
