"""`headwater dlq`: dead letters counted, shown, and replayed after a fix."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.exits import Exit, fail, guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from schemas.topics import Topic

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Dead letters: count them, look at them, replay them after a fix."
)

TopicOption = Annotated[
    str | None, typer.Option("--topic", help="Of this topic alone (its name, or its dead-letter topic's).")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Refused for this reason alone.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Refused since then: 30m, 6h, 2d, or a time like 2026-05-29T12:00Z.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]

_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SHOW_PROGRESS_AFTER_S = 2.0


@app.command("list")
@guarded
def list_letters(
    topic: TopicOption = None, reason: ReasonOption = None, since: SinceOption = None, as_json: JsonOption = False
) -> None:
    """Letters by topic, reason, job and hour (UTC); `waiting` are those that no replay has had."""
    from connectors.registry import SchemaRegistry
    from infra.dead_letters import Chosen, read_letters, waiting

    chosen = Chosen(reason, _since_ms(since))
    letters: Counter[tuple[str, str, str, str]] = Counter()
    unreplayed: Counter[tuple[str, str, str, str]] = Counter()
    sources, registry = _sources(topic), SchemaRegistry()
    with _progress("reading", sources) as step:
        for source in sources:
            is_waiting = waiting(source)
            for letter in read_letters(source, registry):
                step()
                if chosen(letter):
                    row = (source.name, letter.reason, str(letter.record["job"]), _hour(letter.refused_ms))
                    letters[row] += 1
                    unreplayed[row] += is_waiting(letter)
    names = ("topic", "reason", "job", "hour")
    rows = [(*row, letters[row], unreplayed[row]) for row in sorted(letters)]
    if as_json:
        print(json.dumps([dict(zip((*names, "letters", "waiting"), row, strict=True)) for row in rows], indent=2))
    elif not rows:
        print("no dead letters")
    else:
        _print_table((*names, "letters", "waiting"), rows)


@app.command()
@guarded
def show(
    topic: TopicOption = None,
    reason: ReasonOption = None,
    since: SinceOption = None,
    offset: Annotated[int | None, typer.Option(help="The letter at this offset of its dead-letter topic.")] = None,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="The newest so many.")] = 1,
) -> None:
    """Letters with all their fields as JSON, newest last: the refused bytes in hex and, where they decode, as fields.

    Exit code 1 when there is no such letter.
    """
    from connectors.registry import SchemaRegistry
    from infra.dead_letters import Chosen, Letter, SourceRecords, decoded, read_letters

    if offset is not None and topic is None:
        raise fail("--offset is an offset of one topic: say which with --topic", Exit.MISUSED)
    chosen = Chosen(reason, _since_ms(since), offset)
    sources, registry = _sources(topic), SchemaRegistry()
    newest: list[Letter] = []
    with _progress("reading", sources) as step:
        for source in sources:
            for letter in read_letters(source, registry):
                step()
                if chosen(letter):
                    newest.append(letter)
                    if len(newest) > 2 * number:
                        newest = sorted(newest, key=lambda kept: kept.refused_ms)[-number:]
    if not newest:
        raise fail("no such dead letter", Exit.CHECK_FAILED)
    with SourceRecords() as records:
        for letter in sorted(newest, key=lambda kept: kept.refused_ms)[-number:]:
            found = records.find(letter)
            shown: dict[str, Any] = {"dead_letter": f"{letter.topic}/{letter.partition}/{letter.offset}"}
            shown |= {name: value for name, value in letter.record.items() if name != "raw"}
            shown["refused_time"] = datetime.fromtimestamp(letter.refused_ms / 1000, UTC).isoformat()
            if isinstance(found, str):
                shown["raw"] = f"({found})"
            else:
                shown["raw"], shown["decoded"] = found[1], decoded(letter, found[1], registry)
            print(json.dumps(shown, indent=2, default=_hex))


@app.command()
@guarded
def replay(
    topic: TopicOption = None,
    reason: ReasonOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replayed.")] = False,
) -> None:
    """Put refused records back on their topic, each letter once: after the fix, and as often as you like.

    Exit code 1 when letters can't be replayed because their record is nowhere; it says which and why.
    """
    from connectors.registry import SchemaRegistry
    from infra import dead_letters

    sources, registry = _sources(topic), SchemaRegistry()
    rows: list[tuple[object, ...]] = []
    left = False
    with _progress("replaying", sources) as step:
        for source in sources:
            done = dead_letters.replay(source, registry, reason, dry_run=dry_run, on_letter=step)
            rows += [(source.name, why, count, "") for why, count in sorted(done.replayed.items())]
            rows += [(source.name, kind, count, f"left: {why}") for (kind, why), count in sorted(done.left.items())]
            left |= bool(done.left)
    if not rows:
        print("nothing to replay")
        return
    _print_table(("topic", "reason", "would be replayed" if dry_run else "replayed", ""), rows)
    if left:
        raise typer.Exit(Exit.CHECK_FAILED)


def _sources(topic: str | None) -> list[Topic]:
    """The source topics that are meant. Ends with code 2 for a topic that has no dead letters."""
    from infra.dead_letters import SOURCES

    found = [source for source in SOURCES if topic in (None, source.name, source.dead_letter)]
    if not found:
        known = ", ".join(source.name for source in SOURCES)
        raise fail(f"{topic} has no dead letters; these have: {known}", Exit.MISUSED)
    return found


def _since_ms(text: str | None) -> int | None:
    if text is None:
        return None
    if ago := re.fullmatch(r"(\d+)([smhd])", text):
        return int((time.time() - int(ago[1]) * _UNIT_S[ago[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"--since {text}: neither a while ago (30m, 6h, 2d) nor a time", Exit.MISUSED) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _hour(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:00")


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _print_table(names: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, value in zip(names, rows[0], strict=True):
        table.add_column(name, justify="right" if isinstance(value, int) else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


@contextmanager
def _progress(what: str, sources: list[Topic]) -> Iterator[Callable[[], None]]:
    """Something to call for each letter; a bar appears on a terminal when it takes more than two seconds."""
    from rich.console import Console
    from rich.progress import Progress

    from infra.dead_letters import letters_kept

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(what, total=letters_kept(sources))
    began_s = time.monotonic()
    started = False

    def step() -> None:
        nonlocal started
        bar.advance(task)
        if not started and time.monotonic() - began_s > _SHOW_PROGRESS_AFTER_S:
            started = True
            bar.start()

    try:
        yield step
    finally:
        bar.stop()
