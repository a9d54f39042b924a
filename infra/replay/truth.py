"""What must come out of a replay, by an own reading of the files that shares no code with the collector's parsers.

Source: iPinYou contest data, season 3 (24 tab-separated columns); TalkingData AdTracking (8 comma-separated columns).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from infra.replay.logs import IPINYOU_CLICK, IPINYOU_IMPRESSION, TALKINGDATA_CLICK, LogFormat, open_log

IPINYOU_COLUMNS = 24
_BID_ID, _TIME, _PAYING_PRICE = 0, 1, 20
#: Prices are fen (1/100 CNY) per thousand impressions, so one impression costs price x 10 micros of a CNY.
MICROS_PER_PRICE = 10

#: A bid id may be logged more than once, at other times: each such line is an event. The same time is a repeat.
_LineId = tuple[str, str]

TALKINGDATA_COLUMNS = 8
_ATTRIBUTED_TIME, _IS_ATTRIBUTED = 6, 7


@dataclass(slots=True)
class ReplayTruth:
    """Distinct events, their cost, repeated lines, and where the malformed lines are (`file:line`)."""

    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    spend_micros: int = 0
    duplicates: int = 0
    clicks_without_impression: int = 0
    lines: int = 0
    malformed: set[str] = field(default_factory=set)

    @property
    def events(self) -> int:
        return self.impressions + self.clicks + self.conversions


def read_truth(sources: Iterable[tuple[Path, LogFormat]]) -> ReplayTruth:
    """The truth of some files. Errors: OSError."""
    truth = ReplayTruth()
    shown: set[_LineId] = set()
    clicked: set[_LineId] = set()
    for path, log in sources:
        with open_log(path) as stream:
            for number, raw in enumerate(stream, 1):
                text = raw.rstrip("\r\n")
                if not text or (log.header and number == 1):
                    continue
                truth.lines += 1
                columns = text.split(log.separator)
                if log is TALKINGDATA_CLICK:
                    good = _talkingdata(columns, truth)
                else:
                    good = _ipinyou(columns, log, shown if log is IPINYOU_IMPRESSION else clicked, truth)
                if not good:
                    truth.malformed.add(f"{path.name}:{number}")
    shown_bids = {bid_id for bid_id, _time in shown}
    truth.clicks_without_impression = sum(bid_id not in shown_bids for bid_id, _time in clicked)
    return truth


def _ipinyou(columns: list[str], log: LogFormat, seen: set[_LineId], truth: ReplayTruth) -> bool:
    if len(columns) != IPINYOU_COLUMNS or not columns[_BID_ID] or not columns[_PAYING_PRICE].isdigit():
        return False
    try:
        log.parse_time(columns[_TIME])
    except ValueError:
        return False
    line_id = (columns[_BID_ID], columns[_TIME])
    if line_id in seen:
        truth.duplicates += 1
        return True
    seen.add(line_id)
    if log is IPINYOU_CLICK:
        truth.clicks += 1
    else:
        truth.impressions += 1
        truth.spend_micros += int(columns[_PAYING_PRICE]) * MICROS_PER_PRICE
    return True


def _talkingdata(columns: list[str], truth: ReplayTruth) -> bool:
    if len(columns) != TALKINGDATA_COLUMNS or not all(c.isdigit() for c in columns[:5]):
        return False
    attributed = columns[_IS_ATTRIBUTED]
    try:
        TALKINGDATA_CLICK.parse_time(columns[TALKINGDATA_CLICK.time_column])
        if attributed == "1":
            TALKINGDATA_CLICK.parse_time(columns[_ATTRIBUTED_TIME])
    except ValueError:
        return False
    if attributed not in ("0", "1"):
        return False
    truth.clicks += 1
    truth.conversions += attributed == "1"
    return True
