"""`headwater replay`: push a real log through the whole platform, then compare every hop with the files.

Exit codes: 0 every count agrees · 1 one does not · 2 wrong usage · 3 a service is not available.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from connectors.endpoints import Endpoints, endpoints
from infra.demo import report
from infra.demo.hops import take_snapshot
from infra.demo.reconcile import print_report
from infra.replay.logs import IPINYOU_CLICK, IPINYOU_IMPRESSION, TALKINGDATA_CLICK, LogFormat, merged
from infra.replay.reconcile import reconcile_replay
from infra.replay.sender import LogSender, SentCounts
from infra.replay.truth import ReplayTruth, read_truth
from schemas.errors import ConnectorError

app = typer.Typer(no_args_is_help=True, help="Replay a real log through collector, stream and stores, and reconcile.")

LogFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]
SpeedUp = Annotated[float, typer.Option(min=1.0, help="Times faster than the log was written.")]


@app.command()
def ipinyou(impressions: LogFile, clicks: LogFile, speed_up: SpeedUp = 720.0) -> None:
    """iPinYou RTB logs (season 3, tab-separated, gz or plain): six hours take half a minute by default."""
    raise typer.Exit(replay(endpoints(), [(impressions, IPINYOU_IMPRESSION), (clicks, IPINYOU_CLICK)], speed_up))


@app.command()
def talkingdata(clicks: LogFile, speed_up: SpeedUp = 5760.0) -> None:
    """TalkingData clicks with their installs (comma-separated, gz or plain): four days take a minute by default."""
    raise typer.Exit(replay(endpoints(), [(clicks, TALKINGDATA_CLICK)], speed_up))


def replay(ends: Endpoints, sources: list[tuple[Path, LogFormat]], speed_up: float) -> int:
    """Sends the files, waits until all has arrived, prints the comparison; gives back the exit code."""
    console = report.console()
    truth = read_truth(sources)
    console.print(
        f"{truth.lines:,} lines: {truth.impressions:,} impressions, {truth.clicks:,} clicks "
        f"({truth.clicks_without_impression:,} without their impression), {truth.conversions:,} conversions, "
        f"{truth.spend_micros:,} micros, {len(truth.malformed):,} malformed"
    )
    done = ends.home / "ledger" / f"replay-{_fingerprint(sources)}.json"
    try:
        before = take_snapshot(ends)
        if done.exists():
            console.print("These files were replayed here before: every line must now be found to be a duplicate.")
            truth = _again(truth)
        counts = _send(console, ends, sources, speed_up, truth.lines)
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(json.dumps({"files": [str(path) for path, _ in sources], "lines": truth.lines}))
        console.print(f"collector: {counts.accepted:,} accepted, {counts.refused:,} refused")
        with console.status("draining") as status:
            found = reconcile_replay(ends, truth, before, status.update)
    except ConnectorError as error:
        console.print(f"{error}\nIs the stack up? See: headwater status", style="red")
        return 3
    print_report(console, found, "the files against every hop")
    return 0 if found.exact else 1


def _send(
    console: Console, ends: Endpoints, sources: list[tuple[Path, LogFormat]], speed_up: float, lines: int
) -> SentCounts:
    columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TextColumn("{task.fields[numbers]}"), console=console, transient=True) as bar,
        LogSender(ends, speed_up) as sender,
    ):
        task = bar.add_task("replay", total=lines, numbers="")

        def show(counts: SentCounts) -> None:
            numbers = f"{counts.accepted:,} accepted, {counts.refused:,} refused, {counts.lag_ms:,} ms behind"
            bar.update(task, completed=counts.sent, numbers=numbers)

        return sender.replay(merged(sources), show)


def _again(truth: ReplayTruth) -> ReplayTruth:
    """The truth of files whose events all were counted before."""
    return ReplayTruth(duplicates=truth.duplicates + truth.events, lines=truth.lines, malformed=truth.malformed)


def _fingerprint(sources: list[tuple[Path, LogFormat]]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path, log in sources:
        digest.update(log.name.encode())
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    app()
