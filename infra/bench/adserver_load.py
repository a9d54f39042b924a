"""Open-loop load on an ad server, and the DSPs that it asks, in one process: requests are sent when their time has
come, whether or not earlier ones are answered, so that a slow server is not asked less (no coordinated omission).

Run by `infra.bench.adserver` as a process of its own: `python -m infra.bench.adserver_load PLAN.json`; it prints a
JSON line of what it saw.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from infra.simulator.fleet import Asked, Fleet, natures

_SETTLE_S = 1.5
_BEAT_S = 0.005
_STOOD_STILL_MS = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: `seconds` of requests at `rate_per_s` to `port`, while DSPs listen on `dsps_port`."""

    port: int
    dsps_port: int
    dsps: int
    seed: int
    rate_per_s: float
    seconds: float
    tmax_ms: int
    users: int
    placements: int
    longest_ms: float = 60.0
    trouble: float = 0.0
    warm_up: int = 50  # requests one after the other, then some at the plan's rate, for all connections to be there
    warm_up_s: float = 2.0
    first: int = 0  # number of the first request: other numbers are other requests
    host: str = "127.0.0.1"


@dataclass(slots=True)
class Seen:
    """What was seen. Times in ms; `latency_ms` counts from when a request was due. `own_ms` is what the server added:
    from when the request was written, less the slowest DSP that answered before the response. `lag_ms` is how late
    this process's own event loop was, again and again: what is part of `own_ms` and not the server's.
    """

    sent: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    late: int = 0
    #: Of the late ones, those under way while this process, on another core than the server, stood still as well.
    late_stood_still: int = 0
    dsp_counts: dict[str, int] = field(default_factory=dict)
    dsp_bytes_in: int = 0
    won_cpm: float = 0.0


def body_of(number: int, plan: Plan) -> bytes:
    """An OpenRTB 2.6 video request; its id tells which one it is."""
    rng = random.Random(plan.seed * 1_000_003 + number)
    request = {
        "id": f"bench-{plan.seed}-{number}",
        "imp": [
            {
                "id": "1",
                "tagid": f"pl-{rng.randrange(plan.placements)}",
                "video": {
                    "mimes": ["video/mp4"],
                    "minduration": 5,
                    "maxduration": 30,
                    "protocols": [2, 3, 7, 8],
                    "w": 1280,
                    "h": 720,
                    "linearity": 1,
                },
                "bidfloor": 0.5,
                "bidfloorcur": "USD",
                "secure": 1,
            }
        ],
        "site": {
            "id": "site-1",
            "domain": "publisher.example",
            "page": f"https://publisher.example/watch/{number % 997}",
            "cat": ["IAB17"],
            "publisher": {"id": "pub-1"},
            "content": {"id": f"show-{number % 211}", "cat": ["IAB17"], "livestream": 0},
        },
        "device": {
            "ua": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
            "ip": f"198.51.{number % 100}.{number % 250}",
            "devicetype": rng.choice((2, 3, 4)),
            "os": "tvos",
            "language": "en",
            "geo": {"country": "USA", "region": "US-CA"},
        },
        "user": {"id": f"user-{rng.randrange(plan.users)}"},
        "at": 1,
        "tmax": plan.tmax_ms,
        "cur": ["USD"],
    }
    return json.dumps(request, separators=(",", ":")).encode()


class _Client(asyncio.Protocol):
    """A kept connection with one request on it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.number = 0
        self.due_s = 0.0
        self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        status = self._buffer[9:12]
        if status != b"204":
            lower = self._buffer[:head].lower()
            start = lower.find(b"content-length:") + 15
            if len(self._buffer) < head + 4 + int(lower[start:].split(b"\r\n", 1)[0]):
                return
        answer, self._buffer = self._buffer, b""
        self._load.answered(self, status.decode(), answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """Sends a plan's requests and keeps what comes back."""

    def __init__(self, plan: Plan, fleet: Fleet) -> None:
        self.plan = plan
        self.fleet = fleet
        self.seen = Seen()
        self.statuses: Counter[str] = Counter()
        self._idle: deque[_Client] = deque()
        self._open = 0
        self._measuring = False
        self._late_s: list[tuple[float, float]] = []
        self._stood_still_s: list[tuple[float, float]] = []

    async def run(self) -> Seen:
        """Warms up, tells by a line on stdout that it begins, and sends."""
        plan = self.plan
        rng = random.Random(plan.seed)
        for number in range(plan.warm_up):
            await self._send(-1 - number, body_of(-1 - number, plan), time.monotonic())
            await asyncio.sleep(0.02)
        await self._at_rate(-1 - plan.warm_up, -1, plan.warm_up_s, random.Random(plan.seed))
        await asyncio.sleep(_SETTLE_S)
        await self._told("ready")
        self._measuring = True
        self.fleet.counts.clear()
        self.fleet.bytes_in = 0
        beat = asyncio.get_running_loop().create_task(self._beat())
        self.seen.sent = sent = await self._at_rate(plan.first, 1, plan.seconds, rng)
        beat.cancel()
        for _ in range(50):
            if sum(self.statuses.values()) >= sent:
                break
            await asyncio.sleep(0.1)
        await self._told("done")
        self.seen.late_stood_still = sum(
            any(began_s < answered_s and due_s < ended_s for began_s, ended_s in self._stood_still_s)
            for due_s, answered_s in self._late_s
        )
        self.seen.statuses = dict(self.statuses)
        self.seen.dsp_counts = dict(self.fleet.counts)
        self.seen.dsp_bytes_in = self.fleet.bytes_in
        return self.seen

    async def _at_rate(self, first: int, step: int, seconds: float, rng: random.Random) -> int:
        """Sends requests numbered from `first` on, each when it is due, and gives back how many."""
        began_s = next_s = time.monotonic()
        sent = 0
        while next_s < began_s + seconds:
            number = first + step * sent
            body = body_of(number, self.plan)  # while there is time: it is no delay of the server's
            wait_s = next_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self._send(number, body, next_s)
            sent += 1
            next_s += rng.expovariate(self.plan.rate_per_s)
        return sent

    async def _beat(self) -> None:
        """Keeps how late the loop is."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            now_s = time.monotonic()
            self.seen.lag_ms.append((now_s - began_s - _BEAT_S) * 1000)
            if self.seen.lag_ms[-1] > _STOOD_STILL_MS:
                self._stood_still_s.append((began_s, now_s))

    async def _told(self, word: str) -> None:
        """Says it, and waits until the other side has taken its reading."""
        print(word, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    async def _send(self, number: int, body: bytes, due_s: float) -> None:
        client = self._idle.popleft() if self._idle else None
        if client is None or client.transport.is_closing():
            loop = asyncio.get_running_loop()
            _, client = await loop.create_connection(lambda: _Client(self), self.plan.host, self.plan.port)
        client.number, client.due_s, client.sent_s = number, due_s, time.monotonic()
        self.fleet.asked[b"bench-%d-%d" % (self.plan.seed, number)] = Asked()
        client.transport.write(
            b"POST /openrtb2/auction HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            b"x-openrtb-version: 2.6\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def answered(self, client: _Client, status: str, answer: bytes) -> None:
        now_s = time.monotonic()
        latency_s = now_s - client.due_s
        self._idle.append(client)
        asked = self.fleet.asked.pop(b"bench-%d-%d" % (self.plan.seed, client.number))
        if client.number < 0 or not self._measuring:
            return
        self.statuses[status] += 1
        self.seen.latency_ms.append(latency_s * 1000)
        self.seen.own_ms.append((now_s - client.sent_s - asked.slowest_s) * 1000)
        if latency_s * 1000 > self.plan.tmax_ms + 5:
            self.seen.late += 1
            self._late_s.append((client.due_s, now_s))
        if status == "200":
            price = answer.find(b'"price":')
            self.seen.won_cpm += float(answer[price + 8 : price + 30].split(b",", 1)[0])

    def lost(self, client: _Client) -> None:
        if client in self._idle:
            self._idle.remove(client)
        else:
            self.statuses["lost"] += 1


async def _main(plan: Plan) -> None:
    fleet = Fleet(natures(plan.seed, plan.dsps, plan.longest_ms, plan.trouble), plan.seed)
    server = await fleet.start(plan.host, plan.dsps_port)
    seen = await Load(plan, fleet).run()
    server.close()
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(Plan(**json.loads(Path(sys.argv[1]).read_text()))))
