"""The budget soak: servers that win all at once and are killed, a Valkey that is killed, a stream that repeats itself.

Workers (`budget_worker`) are ad servers' limits and store on a real Valkey. The soak plays the rest: a share of the
wins is shown within their life, a share of those that a click pays is clicked on, many of them after the life of an
impression, and the stream's absolute spend and counters of viewers are written with a delay, by
the materializer's own commands, some of them twice, and all of them again after a restart of Valkey. What was truly
shown is compared with the budgets and caps; after the last life the sweep must have given back all that was not.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from connectors.endpoints import Endpoints
from connectors.valkey import Valkey
from connectors.valkey_wire import Command
from infra.bench.budget_market import TIMES, inventory, limit_micros
from infra.bench.services import pid_of
from jobs.transforms.valkey_writes import PendingWrites
from schemas.counters import FREQUENCY_COUNTERS, LIFETIME_S
from schemas.errors import ConnectorError
from schemas.redis_layout import (
    FREQUENCY_PROGRESS,
    MATERIALIZER_MARKER,
    PROGRESS_KEY,
    TOTAL_SPEND,
    pack_counters,
    user_key,
)
from serving.adserver.inventory import AdRow
from serving.adserver.limits.ledger import LEDGER, Account, account, ledger_keys, operation

_ROOT = Path(__file__).resolve().parents[2]
_SHOWN_SHARE, _CLICKED_SHARE = 0.85, 0.9
_LIFE_MS, _CLICK_LIFE_MS = round(TIMES.reservation_s * 1000), round(TIMES.event_reservation_s * 1000)
_WRITE_EVERY_S = 0.1
#: What is killed when, in shares of the soak.
_KILLS = ((0.25, "worker"), (0.35, "valkey"), (0.5, "worker"), (0.65, "valkey"), (0.75, "worker"))
_USER_COUNTERS = [c for c in FREQUENCY_COUNTERS if c.entity == "user"]
_KEYS_PER_WRITE = 500


@dataclass
class Result:
    """What came of a soak. `at_once`: wins that were under way at one moment."""

    at_once: int
    wins: int = 0
    shown: int = 0
    clicks: int = 0
    overspend_micros: int = 0
    stranded_micros: int = 0
    budget_micros: int = 0
    spent_micros: int = 0
    late_micros: int = 0
    caps_exceeded: int = 0
    valkey_kills: int = 0
    worker_kills: int = 0
    commit_cpu_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def stranded_share(self) -> float:
        return self.stranded_micros / self.budget_micros


class Stream:
    """What players and the stream do with wins. Knows the truth: what was shown, of which campaign, to whom."""

    def __init__(self, valkey_url: str, journal: Path, budget_wins: int, run: str) -> None:
        self.market = inventory(budget_wins, run)
        self._run = run
        self.spent_micros: Counter[str] = Counter()
        self.impressions: defaultdict[int, Counter[tuple[str, str]]] = defaultdict(Counter)  # viewer: kind, id
        self.wins = self.shown = self.clicks = 0
        self._valkey = Valkey(valkey_url, timeout_s=2.0)
        self._journal = journal
        self._read_bytes = 0
        self._coming: list[tuple[int, int, int]] = []  # shown at (ms), row, viewer
        self._clicks_coming: list[tuple[int, int]] = []  # clicked on at (ms), row
        self._seen: set[str] = set()
        self._rng = random.Random(7)
        self._dirty: set[int] = set()
        self._run_id: str | None = None

    def step(self) -> None:
        """Reads what was won, shows what is due, writes what is new. Valkey being away leaves it for the next step."""
        now_ms = time.time_ns() // 1_000_000
        self._read(now_ms)
        due = [c for c in self._coming if c[0] <= now_ms]
        self._coming = [c for c in self._coming if c[0] > now_ms]
        for _, row, viewer in due:
            self._show(row, viewer)
        for _, row in (c for c in self._clicks_coming if c[0] <= now_ms):
            self.clicks += 1
            self._pay(row)
        self._clicks_coming = [c for c in self._clicks_coming if c[0] > now_ms]
        try:
            self._write(now_ms)
        except ConnectorError:
            self._run_id = None

    def _read(self, now_ms: int) -> None:
        with self._journal.open("rb") as file:
            file.seek(self._read_bytes)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.decode().splitlines():
            started, record_id, row, viewer = line.split()
            assert record_id not in self._seen, "a record id of its own for every win"
            self._seen.add(record_id)
            self.wins += 1
            draw = hashlib.blake2b(record_id.encode(), digest_size=8).digest()
            # a player shows an ad within its life or not at all: OpenRTB's `exp`
            shown_ms = max(now_ms, int(started) + self._rng.randrange(_LIFE_MS * 9 // 10))
            if int.from_bytes(draw, "big") / 2**64 < _SHOWN_SHARE and shown_ms < int(started) + _LIFE_MS:
                self._coming.append((shown_ms, int(row), int(viewer)))
                clicked_ms = int(started) + self._rng.randrange(_CLICK_LIFE_MS * 9 // 10)
                if self._is_paid_by_clicks(int(row)) and self._rng.random() < _CLICKED_SHARE:
                    self._clicks_coming.append((max(shown_ms, clicked_ms), int(row)))

    def _show(self, row_number: int, viewer: int) -> None:
        self.shown += 1
        if not self._is_paid_by_clicks(row_number):
            self._pay(row_number)
        self.impressions[viewer].update(_scopes(self.market.rows[row_number]))
        self._dirty.add(viewer)

    def _pay(self, row_number: int) -> None:
        row = self.market.rows[row_number]
        self.spent_micros[row.campaign.id] += row.win_price_micros

    def _is_paid_by_clicks(self, row_number: int) -> bool:
        return self.market.rows[row_number].line_item.pricing == "cpc"

    def _write(self, now_ms: int) -> None:
        """Absolute values, some twice; everything after a restart, behind a marker that says so."""
        run_id = _run_id(self._valkey.call("INFO", "server"))
        if run_id != self._run_id:
            self._valkey.call("SET", MATERIALIZER_MARKER, f"rebuilding:{run_id}")
            self._dirty = set(self.impressions)
        pending = PendingWrites()
        day = time.strftime("%Y%m%d", time.gmtime())
        for campaign, micros in self.spent_micros.items():
            for of in (day, TOTAL_SPEND.decode()):
                pending.add_spend({"campaign_id": campaign, "day": of, "spend_micros": micros, "updated_ms": now_ms})
        if not self.spent_micros:
            pending.add_spend({"campaign_id": "nobody", "day": day, "spend_micros": 0, "updated_ms": now_ms})
        dirty = sorted(self._dirty)
        for start in range(0, len(dirty), _KEYS_PER_WRITE):
            self._call([self._counters(viewer, now_ms // 1000) for viewer in dirty[start : start + _KEYS_PER_WRITE]])
        commands: list[Command] = [*pending.commands(), ("HSET", PROGRESS_KEY, FREQUENCY_PROGRESS, now_ms)]
        for _ in range(1 + (self._rng.random() < 0.2)):
            self._call(commands)
        self._dirty.clear()
        if run_id != self._run_id:
            self._valkey.call("SET", MATERIALIZER_MARKER, run_id)
            self._run_id = run_id

    def _counters(self, viewer: int, now_s: int) -> Command:
        values = {}
        for counter in _USER_COUNTERS:
            start_s = 0 if counter.bucket_s == LIFETIME_S else now_s - now_s % counter.bucket_s
            for (kind, scope), count in self.impressions[viewer].items():
                if kind == counter.scope:
                    values[counter, scope, start_s] = count
        pairs = [part for pair in pack_counters(values).items() for part in pair]
        return ("HSET", user_key(f"v1:{self._run}-{viewer}"), *pairs)

    def _call(self, commands: Sequence[Command]) -> None:
        for reply in self._valkey.pipeline(commands):
            if isinstance(reply, ConnectorError):
                raise reply

    def sweep(self) -> list[Account]:
        """Every campaign's ledger, after all that is over was released."""
        settled_ms = time.time_ns() // 1_000_000
        found = []
        for budget in self.market.budgets.values():
            arguments = operation("settle", budget, settled_ms)[6:]
            found.append(account(self._valkey.eval(LEDGER, ledger_keys(budget.campaign_id), arguments)))
        return found

    def exceeded_caps(self) -> int:
        """Impressions beyond a cap. The soak is shorter than any window."""
        limits = {
            (cap.scope, dict(_scopes(row))[cap.scope]): cap.limit
            for row in self.market.rows
            for cap in row.campaign.frequency_caps
        }
        seen = (scope_count for impressions in self.impressions.values() for scope_count in impressions.items())
        return sum(max(0, count - limits.get(scope, count)) for scope, count in seen)


def _scopes(row: AdRow) -> list[tuple[str, str]]:
    return [("creative", row.creative.id), ("campaign", row.campaign.id), ("advertiser", row.advertiser.id)]


def _run_id(info: bytes) -> str:
    lines = (line.partition(":") for line in info.decode().split("\r\n"))
    return next(value for name, _, value in lines if name == "run_id")


def soak(where: Endpoints, seconds: float, at_once: int, workers: int, budget_wins: int, kills: bool = True) -> Result:
    """Runs one. Valkey must be under a supervisor that starts it again. Errors: RuntimeError when a worker fails."""
    result = Result(at_once)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "wins"
        journal.touch()
        run = os.urandom(4).hex()
        stream = Stream(where.valkey_url, journal, budget_wins, run)
        stream.step()
        arguments = (str(journal), run, str(at_once // workers), str(budget_wins))
        seeds = iter(range(10_000))
        running = [_start(arguments, next(seeds)) for _ in range(workers)]
        plan = list(_KILLS) if kills else []
        try:
            _await_first_win(stream, journal)
            began_s = time.monotonic()
            while (passed := time.monotonic() - began_s) < seconds:
                if plan and passed >= plan[0][0] * seconds:
                    if plan[0][1] == "worker":
                        killed = running.pop(0)
                        result.commit_cpu_s += _cpu_s(killed.pid)
                        killed.kill()
                        killed.wait()
                        result.worker_kills += 1
                        running.append(_start(arguments, next(seeds)))
                        plan.pop(0)
                    elif _kill_valkey(where):
                        result.valkey_kills += 1
                        plan.pop(0)
                stream.step()
                time.sleep(_WRITE_EVERY_S)
            for process in running:
                result.commit_cpu_s += _cpu_s(process.pid)
                process.send_signal(signal.SIGTERM)
            ends = time.monotonic() + TIMES.event_reservation_s + TIMES.lease_s + 2 * TIMES.settle_s + 1.0
            while any(p.poll() is None for p in running) or time.monotonic() < ends:
                stream.step()
                time.sleep(_WRITE_EVERY_S)
            for process in running:
                said, _ = process.communicate()
                if process.returncode not in (0, -signal.SIGTERM):  # told to end before it could listen to that
                    raise RuntimeError(f"a worker ended with {process.returncode}")
                result.outcomes.update({k: int(v) for k, _, v in (p.partition("=") for p in said.decode().split())})
        finally:
            for process in running:
                process.kill()
                process.wait()
        stream.step()
        _judge(result, stream)
    return result


def _kill_valkey(where: Endpoints) -> bool:
    """Whether there was one to kill: its supervisor may still be starting it after the last time."""
    try:
        os.kill(pid_of(where, "valkey"), signal.SIGKILL)
    except (RuntimeError, ProcessLookupError):
        return False
    return True


def _await_first_win(stream: Stream, journal: Path) -> None:
    """The clock runs once somebody wins: starting Python takes a soak's while. Errors: RuntimeError."""
    give_up_s = time.monotonic() + 60.0
    while not journal.stat().st_size:
        if time.monotonic() > give_up_s:
            raise RuntimeError("nobody has won anything")
        stream.step()
        time.sleep(_WRITE_EVERY_S)


def _judge(result: Result, stream: Stream) -> None:
    result.wins, result.shown, result.clicks = stream.wins, stream.shown, stream.clicks
    for found, budget in zip(stream.sweep(), stream.market.budgets.values(), strict=True):
        limit = limit_micros(budget.daily_micros, budget.lifetime_micros)
        spent = stream.spent_micros[budget.campaign_id]
        result.budget_micros += limit
        result.spent_micros += spent
        result.overspend_micros += max(0, spent - limit)
        result.stranded_micros += abs(limit - spent - found.headroom_micros)
        result.late_micros += found.late_micros
    result.caps_exceeded = stream.exceeded_caps()


def _start(arguments: tuple[str, ...], seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "infra.bench.budget_worker", *arguments, str(seed)]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE)


def _cpu_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
