"""Any number of simulated DSPs from one seed, cheap enough to be measured against: about 10 µs of CPU per answer.

Who bids, how much and how late is decided before the first request: each DSP has a table of answers, and a request's
id says which of them it gets. So the same requests get the same bids from whoever is asked, and what it costs not to
ask somebody can be measured. Door: `POST /dsp/<id>/bid`. What a request is asked for is found by looking for its first
`"id"` and its imps; an OpenRTB request as our ad server and its rivals in benchmarks write it, not any that there is.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field

#: Answers that a DSP's requests are spread over.
TABLE = 2048
_REQUEST_ID = re.compile(rb'"id"\s*:\s*"([^"]+)"')
_IMP_ID = re.compile(rb'"imp"\s*:\s*\[\s*\{\s*"id"\s*:\s*"([^"]+)"')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_VAST = (
    '<VAST version=\\"4.2\\"><Ad id=\\"{crid}\\"><InLine><AdSystem>{dsp}</AdSystem><AdTitle>{crid}</AdTitle>'
    '<Impression id=\\"{dsp}\\"><![CDATA[https://imp.{dsp}.example/i?c={crid}]]></Impression>'
    '<Creatives><Creative id=\\"{crid}\\"><Linear><Duration>00:00:15</Duration>'
    "<VideoClicks><ClickThrough><![CDATA[https://{dsp}.example/{crid}]]></ClickThrough></VideoClicks>"
    '<MediaFiles><MediaFile delivery=\\"progressive\\" type=\\"video/mp4\\" width=\\"1280\\" height=\\"720\\">'
    "<![CDATA[https://media.{dsp}.example/{crid}.mp4]]></MediaFile></MediaFiles>"
    "</Linear></Creative></Creatives></InLine></Ad></VAST>"
)


@dataclass(frozen=True, slots=True)
class Nature:
    """How a DSP of the fleet is. Prices are log-normal (median, sigma of the logarithm); latencies log-normal too, cut
    at `longest_ms`. `stuck_share` of its answers come after a second.
    """

    id: str
    bid_share: float
    median_cpm: float  # dollars
    price_sigma: float
    median_latency_ms: float
    latency_sigma: float
    longest_ms: float
    error_share: float = 0.0
    stuck_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: `status` is 200, 204 or 500."""

    status: int
    latency_s: float
    middle: bytes = b""  # of the body, between the request's id and the imp's
    end: bytes = b""


def natures(seed: int, count: int, longest_ms: float = 60.0, trouble: float = 0.0) -> list[Nature]:
    """DSPs of all kinds: a few buy most, many buy little. `trouble` is the share of errors and of stuck answers."""
    rng = random.Random(f"fleet:{seed}")
    found = []
    for n in range(count):
        rank = n / max(1, count - 1)  # 0: the best buyer
        found.append(
            Nature(
                id=f"dsp-{n + 1:02d}",
                bid_share=round(0.6 * math.exp(-3.5 * rank) + 0.01, 3),
                median_cpm=round(rng.uniform(1.0, 3.0) + 2.0 * (1 - rank), 2),
                price_sigma=rng.uniform(0.3, 0.6),
                median_latency_ms=rng.uniform(0.15, 0.6) * longest_ms,
                latency_sigma=rng.uniform(0.15, 0.5),
                longest_ms=longest_ms,
                error_share=trouble * rng.random(),
                stuck_share=trouble * rng.random(),
            )
        )
    return found


def answers(nature: Nature, seed: int) -> list[Said]:
    """A DSP's table of answers."""
    rng = random.Random(f"{nature.id}:{seed}")
    table = []
    for _ in range(TABLE):
        latency_ms = nature.median_latency_ms * math.exp(rng.gauss(0.0, nature.latency_sigma))
        latency_s = min(latency_ms, nature.longest_ms) / 1000
        fate = rng.random()
        if fate < nature.error_share:
            table.append(Said(500, latency_s))
        elif fate < nature.error_share + nature.stuck_share:
            table.append(Said(204, 1.0))
        elif rng.random() >= nature.bid_share:
            table.append(Said(204, latency_s))
        else:
            table.append(_bid(nature, rng, latency_s))
    return table


def _bid(nature: Nature, rng: random.Random, latency_s: float) -> Said:
    price = round(nature.median_cpm * math.exp(rng.gauss(0.0, nature.price_sigma)), 4)
    crid = f"{nature.id}-cr-{rng.randrange(1, 9)}"
    middle = f'","cur":"USD","seatbid":[{{"seat":"{nature.id}-seat","bid":[{{"id":"{rng.getrandbits(48):x}","impid":"'
    end = (
        f'","price":{price},"cid":"c{rng.randrange(1, 4)}","crid":"{crid}","adomain":["{nature.id}.example"],'
        f'"mtype":2,"w":1280,"h":720,"dur":15,"adm":"{_VAST.format(crid=crid, dsp=nature.id)}"}}]}}]}}'
    )
    return Said(200, latency_s, middle.encode(), end.encode())


@dataclass(slots=True)
class Asked:
    """What a request has cost its DSPs, from the arrival of its last byte to the sending of the answer."""

    slowest_s: float = 0.0


@dataclass
class Fleet:
    """The DSPs behind one port. `asked` keeps the slowest answer of each request until somebody takes it out."""

    dsps: list[Nature]
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    asked: dict[bytes, Asked] = field(default_factory=dict)
    bytes_in: int = 0

    def __post_init__(self) -> None:
        self.tables = {n.id.encode(): answers(n, self.seed) for n in self.dsps}

    def said(self, dsp: bytes, request_id: bytes) -> Said:
        """A DSP's answer to a request. Errors: KeyError for a DSP that is none of them."""
        return self.tables[dsp][zlib.crc32(request_id + dsp) % TABLE]

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listens. Errors: OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Wire(self, loop), host, port, backlog=4096)


class _Wire(asyncio.Protocol):
    """One connection with one request at a time."""

    __slots__ = ("_buffer", "_fleet", "_loop", "_transport")

    def __init__(self, fleet: Fleet, loop: asyncio.AbstractEventLoop) -> None:
        self._fleet = fleet
        self._loop = loop
        self._buffer = b""
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data if self._buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(buffer, 0, head)
        if len(buffer) < head + 4 + (int(length[1]) if length else 0):
            return
        self._buffer = b""
        arrived_s = time.monotonic()
        fleet = self._fleet
        fleet.bytes_in += len(buffer)
        dsp = buffer[: buffer.find(b" HTTP/")].rpartition(b"/dsp/")[2].partition(b"/")[0]
        request, imp = _REQUEST_ID.search(buffer, head), _IMP_ID.search(buffer, head)
        if request is None or imp is None or dsp not in fleet.tables:
            fleet.counts["malformed"] += 1
            self._transport.write(_ERROR)
            return
        said = fleet.said(dsp, request[1])
        fleet.counts[str(said.status)] += 1
        self._loop.call_later(said.latency_s, self._answer, said, request[1], imp[1], arrived_s)

    def _answer(self, said: Said, request_id: bytes, imp_id: bytes, arrived_s: float) -> None:
        if self._transport.is_closing():
            return
        if said.status == 200:
            body = b'{"id":"' + request_id + said.middle + imp_id + said.end
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)
        else:
            self._transport.write(_NO_CONTENT if said.status == 204 else _ERROR)
        asked = self._fleet.asked.get(request_id)
        if asked is not None:
            asked.slowest_s = max(asked.slowest_s, time.monotonic() - arrived_s)
