"""Golden cases: tests/golden/<job>/{exemplary,rejects}/<case>.json, run by the stream jobs and by the plain rules.

A case has `why` (the arithmetic in words), `events` (only what matters; the rest is filled in here) and `expected`:
logical table -> rows (only the columns that matter; the number of rows always does). It may have `decisions`.
All cases run at once. Ids of a case carry its name, so that cases do not meet; rows are given back without it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.streaming.settings import Settings
from tests.samples.stream_io import DEFAULTS

ROOT = Path(__file__).parent.parent / "golden"
KINDS = ("exemplary", "rejects")
NOON_MS = 1_780_056_000_000  # 29 May 2026, 12:00 UTC
_KEYS = {"why", "events", "expected"}
_IDS = (
    "record_id",
    "user_pseudonym",
    "household_pseudonym",
    "advertiser_id",
    "campaign_id",
    "creative_id",
    "placement_id",
    "content_category",
    "order_id",
)
#: Settings of the stream jobs that the cases count on: small limits, so that a case need not be long.
SETTINGS = Settings(
    session_gap_s=15,
    ivt_click_flood_clicks=3,
    ivt_address_users=2,
    ivt_data_center_events=1,
    health_min_impressions=4,
    health_min_events=4,
)

_TEMPLATE = {
    **DEFAULTS,
    "record_id": "ad",
    "event_type": "impression",
    "event_time_ms": 0,
    "user_pseudonym": "user",
    "advertiser_id": "advertiser",
    "campaign_id": "campaign",
    "creative_id": "creative",
    "placement_id": "placement",
}
_DECISION = {
    "record_id": "ad",
    "decision_time_ms": 0,
    "winner_campaign_id": "campaign",
    "price_cpm_micros": 2_500_000,
    "currency": "USD",
}
_TIMES = ("event_time_ms", "received_time_ms", "published_time_ms")


@dataclass(frozen=True)
class Case:
    """One golden case. Times in it are ms after `NOON_MS`."""

    job: str
    name: str
    why: str
    events: tuple[dict[str, Any], ...]
    expected: dict[str, list[dict[str, Any]]]
    decisions: tuple[dict[str, Any], ...] = ()

    @property
    def prefix(self) -> str:
        return f"{self.job}.{self.name}/"


def cases(jobs: tuple[str, ...]) -> list[Case]:
    """All cases of some jobs. Errors: ValueError for a folder, file or key that nothing would run."""
    found = []
    for job in jobs:
        for path in sorted((ROOT / job).rglob("*")):
            if path.is_dir() and path.parent == ROOT / job and path.name in KINDS:
                continue
            if path.suffix != ".json" or path.parent.name not in KINDS or path.parent.parent != ROOT / job:
                raise ValueError(f"{path} is no golden case: nothing would run it")
            found.append(_read(job, path))
    return found


def _read(job: str, path: Path) -> Case:
    content = json.loads(path.read_text())
    if set(content) - {"decisions"} != _KEYS or not content["why"].strip():
        raise ValueError(f"{path} must have exactly {sorted(_KEYS)}, and say why")
    case = Case(job, path.stem, content["why"], (), content["expected"])
    events = tuple(_event(case, e) for e in content["events"])
    decisions = tuple(_decision(case, d) for d in content.get("decisions", ()))
    return Case(job, path.stem, content["why"], events, case.expected, decisions)


def _decision(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    unknown = set(given) - set(_DECISION)
    if unknown:
        raise ValueError(f"{case.prefix}: a decision here has no {sorted(unknown)}")
    decision = {**_DECISION, **given}
    decision["decision_time_ms"] += NOON_MS
    for name in ("record_id", "winner_campaign_id"):
        if decision[name]:
            decision[name] = case.prefix + decision[name]
    return decision


def _event(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    unknown = set(given) - set(_TEMPLATE) - set(_TIMES)
    if unknown:
        raise ValueError(f"{case.prefix}: an AdEvent has no {sorted(unknown)}")
    event = {**_TEMPLATE, **given}
    event["event_time_ms"] += NOON_MS
    event["received_time_ms"] = (
        given["received_time_ms"] + NOON_MS if "received_time_ms" in given else event["event_time_ms"]
    )
    event["published_time_ms"] = (
        given["published_time_ms"] + NOON_MS if "published_time_ms" in given else event["received_time_ms"]
    )
    for name in _IDS:
        if event[name]:
            event[name] = case.prefix + event[name]
    identity = f"{case.prefix}{event['record_id']}|{event['event_type']}|{event['ordinal']}"
    event["event_id"] = hashlib.blake2b(identity.encode(), digest_size=16).digest()
    return event


def rows_of(case: Case, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that belong to a case, its name and noon taken off again."""
    return [_bare(case, row) for row in rows if any(_belongs(case, value) for value in row.values())]


def _belongs(case: Case, value: Any) -> bool:
    text = value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value
    return isinstance(text, str) and text.startswith(case.prefix)


def _bare(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    def bare(name: str, value: Any) -> Any:
        if isinstance(value, str):
            return value.removeprefix(case.prefix)
        if isinstance(value, list | tuple | set | frozenset):
            return sorted(bare(name, element) for element in value)
        if isinstance(value, int) and name.endswith("_ms") and value > NOON_MS // 2:
            return value - NOON_MS
        return value

    return {name: bare(name, value) for name, value in row.items()}


def differences(case: Case, table: str, found: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the rows of a table, in words; empty when every expected row is there and no other."""
    left = list(found)
    wrong = []
    for row in case.expected.get(table, []):
        match = next((f for f in left if all(name in f and f[name] == row[name] for name in row)), None)
        if match is None:
            wrong.append(f"{case.prefix} {table}: expected {row}")
        else:
            left.remove(match)
    wrong += [f"{case.prefix} {table}: not expected {row}" for row in left]
    return wrong
