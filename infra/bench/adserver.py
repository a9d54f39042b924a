"""`headwater bench adserver`: CPU per auction and the time that the ad server itself adds, beside the auction as it
would first be written (`straightforward_adserver`), with 30 DSPs and 100 candidates each.

Both are driven open-loop against the same fleet of simulated DSPs, on the same Valkey, with the same model. What counts
is the CPU of the server's process or processes, from the first request after the warm-up to the last answer; the
decision log goes to a real Kafka for ours and is not written by the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from connectors.endpoints import Endpoints
from connectors.keys import KeyRing
from connectors.valkey import Valkey
from infra.bench import adserver_market as market
from infra.bench.adserver_load import Plan, Seen
from infra.bench.adserver_model import MODEL_NAME, register, write_model
from infra.bench.report import Row, cpu_seconds, interleaved
from infra.bench.services import services
from infra.demo.freshness import quantile
from schemas.catalog import Bidders
from schemas.catalog_text import dump

DSPS = 30
OURS_PER_S, BESIDE_PER_S = 100.0, 4.0
OURS_S, BESIDE_S = 10.0, 15.0
DEADLINE_REQUESTS = 100_000
CAPACITY_PER_S, CAPACITY_S, CAPACITY_DSPS = 150.0, 8.0, 3
_TIER_PERIOD_S = 6
_SEED = 1
_START_S = 60.0
_ALL_CORES = sorted(os.sched_getaffinity(0))
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of load: CPU of the server per answered auction, and what the load saw."""

    cpu_ms: float
    seen: Seen

    @property
    def answered(self) -> int:
        """Auctions that were held: in this market somebody always bids, so a 204 is a request that was shed."""
        return self.seen.statuses.get("200", 0) or 1

    @property
    def shed_share(self) -> float:
        return 1 - self.answered / max(self.seen.sent, 1)


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """The rows, and what is in them."""
    with _cores_apart(), services(("contracts", "valkey", "mlflow")) as where:
        prepare(where)
        rounds: list[Measured] = []

        def ours() -> float:
            with our_server(where):
                rounds.append(measure(where, plan(where, OURS_PER_S, OURS_S * scale)))
            return rounds[-1].cpu_ms

        def beside() -> float:
            with straightforward(where):
                return measure(where, plan(where, BESIDE_PER_S, BESIDE_S * scale)).cpu_ms

        samples = interleaved(ours, beside, pairs, _dot)
        own = tuple((quantile(m.seen.own_ms, 0.99) or 0.0, None) for m in rounds)
        lag = tuple((quantile(m.seen.lag_ms, 0.99) or 0.0, None) for m in rounds)
        all_asked, by_tier = tiers(where, scale)
        with our_server(where):
            late = measure(where, deadline_plan(where, scale))
        workers = interleaved(lambda: capacity(where, 2, scale), lambda: capacity(where, 1, scale), pairs, _dot)
    print(file=sys.stderr)
    rows = [
        Row("server CPU per auction, 30 DSPs and 100 candidates", "ms", samples),
        Row("own overhead at 100 auctions/s, p99", "ms", own),
        Row("the load's own event loop, late by, p99", "ms", lag),
        Row(f"answers later than tmax + 5 ms, of {late.seen.sent:,}", "answers", ((float(late.seen.late), None),)),
        Row("of them while the load's core stood still, too", "answers", ((float(late.seen.late_stood_still), None),)),
        Row(f"2 processes beside 1, a core each, {CAPACITY_DSPS} DSPs", "auctions/s", workers),
        Row(
            "sent to DSPs, by tiers beside all asked",
            "bytes/auction",
            ((by_tier.seen.dsp_bytes_in / by_tier.answered, all_asked.seen.dsp_bytes_in / all_asked.answered),),
        ),
        Row(
            "price of what was shown, by tiers beside all asked",
            "CPM",
            ((by_tier.seen.won_cpm / by_tier.answered, all_asked.seen.won_cpm / all_asked.answered),),
        ),
    ]
    notes = [
        f"ours, one process, at {OURS_PER_S:.0f} auctions/s with decision log, consent and notices; the other"
        f" at {BESIDE_PER_S:.0f}/s, which it can bear; requests are sent when they are due, whatever is unanswered",
        f"ours shed {max(m.shed_share for m in rounds):.1%} of a round at most, {late.shed_share:.1%} of the deadline"
        " run; CPU is per auction that was held",
        "own overhead: from writing the request to reading the response, less the slowest DSP that answered before it,"
        " both seen from the DSPs' side",
        f"tiers: judged every {_TIER_PERIOD_S} s in this run, on other requests than those that are measured",
        f"processes: {CAPACITY_PER_S:.0f} auctions/s for each; auctions per CPU-second, times their number",
        "the server has a core of its own but in the processes' row; load, DSPs, Kafka and Valkey have the others",
        f"deadline run: DSPs of which 10 % err or hang, tmax {late_tmax()} ms; the load's loop was late by"
        f" {max(late.seen.lag_ms):.0f} ms at most",
    ]
    return rows, notes


def prepare(where: Endpoints) -> None:
    """Catalogue, DSPs, model, and the past of users and ads."""
    (where.home / "catalog.json").write_text(dump(market.catalog(_SEED)))
    write_bidders(where, DSPS)
    with Valkey(where.valkey_url) as valkey:
        market.fill(valkey, KeyRing.load(where.secrets), _SEED)
    write_model(where.home, _SEED)
    register(where.mlflow_url, where.home)


def write_bidders(where: Endpoints, count: int) -> None:
    (where.home / "bidders.json").write_text(dump(Bidders(1, market.bidders(count, where.dsps_url))))


def plan(where: Endpoints, rate_per_s: float, seconds: float, dsps: int = DSPS) -> Plan:
    """The usual load: DSPs that take up to 60 ms and always answer, so that what is over is our own."""
    return Plan(
        port=where.port("adserver"),
        dsps_port=where.port("dsps"),
        dsps=dsps,
        seed=_SEED,
        rate_per_s=rate_per_s,
        seconds=seconds,
        tmax_ms=300,
        users=market.USERS,
        placements=market.PLACEMENTS,
    )


def late_tmax() -> int:
    return 150


def deadline_plan(where: Endpoints, scale: float) -> Plan:
    """Load against DSPs that are slower than the deadline lets them be, err and hang."""
    usual = plan(where, OURS_PER_S, DEADLINE_REQUESTS * scale / OURS_PER_S)
    return replace(usual, tmax_ms=late_tmax(), longest_ms=200.0, trouble=0.1)


def tiers(where: Endpoints, scale: float) -> tuple[Measured, Measured]:
    """The same requests with all DSPs asked, and with those that earlier requests have shown to be worth asking."""
    load = plan(where, OURS_PER_S, max(OURS_S * scale, 3.0))
    with our_server(where):
        all_asked = measure(where, load)
    with our_server(where, HEADWATER_ADSERVER_DSP_TIERS_S=str(_TIER_PERIOD_S)):
        measure(where, replace(load, seconds=2.5 * _TIER_PERIOD_S, first=1_000_000))
        return all_asked, measure(where, load)


def capacity(where: Endpoints, workers: int, scale: float) -> float:
    """Auctions per second that so many processes hold with a core each, by the CPU that an auction takes them.

    Every process gets the same load as one alone, and little enough for the load and the DSPs to run beside it on two
    cores: so a worse figure of several is what they cost each other, not what they wait for.
    """
    write_bidders(where, CAPACITY_DSPS)
    try:
        with our_server(where, _ALL_CORES, HEADWATER_ADSERVER_WORKERS=str(workers)):
            load = plan(where, CAPACITY_PER_S * workers, max(CAPACITY_S * scale, 2.0), CAPACITY_DSPS)
            found = measure(where, load)
        return workers * 1000 / found.cpu_ms * (1 - found.shed_share)
    finally:
        write_bidders(where, DSPS)


@contextmanager
def our_server(where: Endpoints, cores: Collection[int] = (), **settings: str) -> Iterator[None]:
    """Ours, on the core that is kept for the server unless others are given."""
    environment = {"HEADWATER_ADSERVER_MODEL_NAME": MODEL_NAME, "HEADWATER_ADSERVER_NOTICES_ALLOW_PRIVATE": "true"}
    with _server(where, ["-m", "serving.adserver"], environment | settings, "bench-ctr-v", cores):
        yield


@contextmanager
def straightforward(where: Endpoints) -> Iterator[None]:
    arguments = ["-m", "infra.bench.straightforward_adserver", str(where.home), str(where.port("adserver"))]
    with _server(where, arguments, {}, "ready"):
        yield


@contextmanager
def _server(
    where: Endpoints, arguments: Sequence[str], settings: dict[str, str], word: str, cores: Collection[int] = ()
) -> Iterator[None]:
    """A server that has said `word` in its status, and is gone afterwards. Errors: RuntimeError."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=_ROOT, env={**os.environ, **one_thread, **settings}, stderr=subprocess.DEVNULL
    )
    _SERVER.append(process.pid)
    os.sched_setaffinity(process.pid, cores or _ALL_CORES[-1:])
    try:
        deadline_s = time.monotonic() + _START_S
        while word not in _status(where):
            if time.monotonic() > deadline_s or process.poll() is not None:
                raise RuntimeError(f"{arguments[1]} is not ready")
            time.sleep(0.1)
        yield
    finally:
        _SERVER.pop()
        process.terminate()
        process.wait(60)


_SERVER: list[int] = []


@contextmanager
def _cores_apart() -> Iterator[None]:
    """Keeps a core for the server: whatever else is started from here on has the others, if there are others."""
    os.sched_setaffinity(0, _ALL_CORES[:-1] or _ALL_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, _ALL_CORES)


def _status(where: Endpoints) -> str:
    try:
        with urllib.request.urlopen(f"{where.adserver_url}/status", timeout=5) as answer:
            return str(answer.read())
    except (OSError, urllib.error.URLError):
        return ""


def measure(where: Endpoints, load: Plan) -> Measured:
    """Runs a plan against the server that is running."""
    path = where.home / "plan.json"
    path.write_text(json.dumps(asdict(load)))
    driver = subprocess.Popen(
        [sys.executable, "-m", "infra.bench.adserver_load", str(path)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdin is not None and driver.stdout is not None
    try:
        used_s = []
        for word in ("ready", "done"):
            if driver.stdout.readline().strip() != word:
                raise RuntimeError("the load ended early")
            used_s.append(_server_cpu_s())
            driver.stdin.write("\n")
            driver.stdin.flush()
        seen = Seen(**json.loads(driver.stdout.readline()))
    finally:
        driver.terminate()
        driver.wait(60)
    held = seen.statuses.get("200", 0) or 1
    return Measured((used_s[1] - used_s[0]) * 1000 / held, seen)


def _server_cpu_s() -> float:
    """CPU of the server and its workers so far."""
    process = psutil.Process(_SERVER[-1])
    return cpu_seconds([process.pid, *(child.pid for child in process.children(recursive=True))])


def _dot() -> None:
    print(".", end="", flush=True, file=sys.stderr)
