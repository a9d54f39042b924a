"""Lines of a real log in the order of their time, from gz or plain files, in bounded memory.

Logs of many machines are only nearly sorted, or not at all: lines pass through a heap of `window` lines, which puts
every line right that is displaced by less than that. A line without a readable time keeps its place.
"""

from __future__ import annotations

import gzip
import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TextIO

WINDOW_LINES = 200_000
_CHINA = timezone(timedelta(hours=8))


@dataclass(frozen=True, slots=True, order=True)
class LogLine:
    """One line of a file. `time_ms` is epoch ms of the line's own clock, `number` counts from 1."""

    time_ms: int
    number: int
    format: str
    file: str
    text: str


@dataclass(frozen=True, slots=True)
class LogFormat:
    """How the collector names a format, where its time is, and whether the file begins with a header."""

    name: str
    separator: str
    time_column: int
    parse_time: Callable[[str], int]
    header: bool = False


def _ipinyou_ms(text: str) -> int:
    """Epoch ms of yyyyMMddHHmmssSSS in China's time.

    Example:
    >>> _ipinyou_ms("20131021000000001")
    1382284800001
    """
    if len(text) != 17 or not text.isdigit():
        raise ValueError(f"not a time: {text!r}")
    moment = datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=_CHINA)
    return int(moment.timestamp()) * 1000 + int(text[14:])


def _talkingdata_ms(text: str) -> int:
    """Epoch ms of `yyyy-MM-dd HH:mm[:ss]` in UTC, hours without a leading zero allowed.

    Example:
    >>> _talkingdata_ms("2017-11-07 9:30")
    1510047000000
    """
    form = "%Y-%m-%d %H:%M:%S" if text.count(":") == 2 else "%Y-%m-%d %H:%M"
    return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()) * 1000


IPINYOU_IMPRESSION = LogFormat("ipinyou-impression", "\t", 1, _ipinyou_ms)
IPINYOU_CLICK = LogFormat("ipinyou-click", "\t", 1, _ipinyou_ms)
TALKINGDATA_CLICK = LogFormat("talkingdata-click", ",", 5, _talkingdata_ms, header=True)


@contextmanager
def open_log(path: Path) -> Iterator[TextIO]:
    """The text of a file, unpacked when it is gzip; bytes that are not UTF-8 are replaced. Errors: OSError."""
    with path.open("rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    opener = gzip.open if packed else open
    with opener(path, "rt", encoding="utf-8", errors="replace", newline="\n") as stream:
        yield stream


def read_lines(path: Path, log: LogFormat) -> Iterator[LogLine]:
    """Lines in file order; empty ones are skipped, the header too.

    A line without a readable time has that of the one before it (at a file's begin: of the first that has one).
    """
    untimed: list[tuple[int, str]] = []
    last_ms: int | None = None
    with open_log(path) as stream:
        for number, raw in enumerate(stream, 1):
            text = raw.rstrip("\r\n")
            if not text or (log.header and number == 1):
                continue
            columns = text.split(log.separator)
            with suppress(ValueError, IndexError):
                last_ms = log.parse_time(columns[log.time_column])
            if last_ms is None:
                untimed.append((number, text))
                continue
            for earlier, earlier_text in untimed:
                yield LogLine(last_ms, earlier, log.name, path.name, earlier_text)
            untimed.clear()
            yield LogLine(last_ms, number, log.name, path.name, text)
    for number, text in untimed:
        yield LogLine(0, number, log.name, path.name, text)


def in_time_order(lines: Iterable[LogLine], window: int = WINDOW_LINES) -> Iterator[LogLine]:
    """The same lines, sorted by time as far as the window reaches.

    Example:
    >>> lines = [LogLine(t, n, "f", "a", "") for n, t in enumerate((2, 1, 3), 1)]
    >>> [line.time_ms for line in in_time_order(lines)]
    [1, 2, 3]
    """
    heap: list[LogLine] = []
    for line in lines:
        if len(heap) < window:
            heapq.heappush(heap, line)
        else:
            yield heapq.heappushpop(heap, line)
    while heap:
        yield heapq.heappop(heap)


def merged(sources: Iterable[tuple[Path, LogFormat]]) -> Iterator[LogLine]:
    """Several files as one stream in time order. Errors: OSError."""
    return heapq.merge(*(in_time_order(read_lines(path, log)) for path, log in sources))
