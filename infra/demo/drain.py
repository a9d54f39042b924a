"""Waits until everything that was sent has arrived everywhere, then counts.

A stage is settled when its counts equal what is expected, or have not moved for `quiet_s`: then they are reported as
they are. The wait never makes a wrong count right; it only bounds how long a right one may take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from connectors.endpoints import Endpoints
from connectors.kafka import lag
from infra.demo import hops
from infra.demo.hops import ByCampaign, Snapshot
from infra.demo.reconcile import Report, compare, planted_checks, truth_by_campaign
from infra.demo.tally import KafkaTally
from infra.simulator.ledger import Truth
from jobs.lake.drain import drain as drain_lake
from schemas.errors import ConnectorError, TimedOut
from schemas.topics import AD_CONVERSIONS, AD_EVENTS_LATE, AD_SESSIONS, AD_TELEMETRY

PUBLISHER_GROUP = "publisher"
_POLL_S = 0.5

Say = Callable[[str], None]


def wait_published(timeout_s: float = 120.0) -> None:
    """Blocks until the publisher has read what is in its topics now. Errors: TimedOut, Unavailable."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        behind = sum(lag(PUBLISHER_GROUP, topic.name) for topic in (AD_TELEMETRY, AD_CONVERSIONS))
        if behind == 0:
            return
        if time.monotonic() > deadline_s:
            raise TimedOut(f"the publisher is {behind} records behind after {timeout_s:g} s")
        time.sleep(_POLL_S)


def settle(read: Callable[[], ByCampaign], right: Callable[[ByCampaign], bool], quiet_s: float) -> ByCampaign:
    """The counts once they are right, or have not moved for `quiet_s`. A store that does not answer counts as moving.

    Errors: the store's own, when it has not answered for `quiet_s`.
    """
    seen: ByCampaign | None = None
    moved_s = time.monotonic()
    while True:
        try:
            now = read()
        except ConnectorError:
            if time.monotonic() - moved_s > quiet_s:
                raise
        else:
            if right(now):
                return now
            if now != seen:
                seen, moved_s = now, time.monotonic()
            elif time.monotonic() - moved_s > quiet_s:
                return now
        time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class Drained:
    """Counts of every hop since a snapshot, and the tally of the topics."""

    hops: dict[str, ByCampaign]
    tally: KafkaTally


def drain_hops(
    ends: Endpoints,
    wanted: ByCampaign,
    before: Snapshot,
    say: Say = lambda text: None,
    *,
    shape: Callable[[ByCampaign], ByCampaign] = lambda counts: counts,
    with_sessions: bool = True,
    quiet_s: float = 75.0,
) -> Drained:
    """Waits hop by hop until each holds what is wanted, or stands still. Blocks.

    `shape` is applied to a hop's counts before they are compared. Without `with_sessions` nothing waits for sessions
    to close. `quiet_s` must exceed the silence that closes the last ones (source idle time + gap + a checkpoint).
    Errors: ConnectorError when a part stays away.
    """
    say("publisher: reading what the collector wrote")
    wait_published()
    found: dict[str, ByCampaign] = {}
    with KafkaTally(ends, before.offsets, before.event_ids) as tally:

        def await_hop(hop: str, read: Callable[[], ByCampaign], measures: tuple[str, ...]) -> None:
            def added() -> ByCampaign:
                return shape(hops.minus(read(), before.stores.get(hop, {})))

            def right(counts: ByCampaign) -> bool:
                return all(line.exact for line in compare(wanted, {hop: counts}) if line.measure in measures)

            found[hop] = settle(added, right, quiet_s)

        def sessions() -> ByCampaign:
            tally.read_to_end((AD_SESSIONS.name, AD_EVENTS_LATE.name))
            return hops.kafka_counts(tally)[hops.SESSIONS]

        unclosed = tuple(m for m in hops.MEASURES if m != "sessions_completed")
        say("Valkey: waiting for the materializer")
        await_hop(hops.VALKEY, lambda: hops.valkey_counts(ends), hops.MEASURES)
        if with_sessions:
            say("sessions: waiting for the last ones to close")
            await_hop(hops.SESSIONS, sessions, hops.MEASURES)
        say("Druid: waiting for ingestion")
        await_hop(hops.DRUID, lambda: hops.druid_counts(ends), hops.MEASURES if with_sessions else unclosed)
        say("lake: committing")
        drain_lake(lake_url(ends), timeout_s=120.0)
        found[hops.LAKE] = shape(hops.minus(hops.lake_counts(ends), before.stores.get(hops.LAKE, {})))
        say("ad-events: counting")
        tally.read_to_end()
        found[hops.KAFKA] = shape(hops.kafka_counts(tally)[hops.KAFKA])
        return Drained({hop: found[hop] for hop in hops.HELD if hop in found}, tally)


def reconcile(
    ends: Endpoints,
    truth: Truth,
    before: Snapshot,
    say: Say = lambda text: None,
    *,
    quiet_s: float = 75.0,
    with_sessions: bool = True,
) -> Report:
    """Drains the stack and compares every hop with the truth of what was sent since `before`. As `drain_hops`."""
    wanted = truth_by_campaign(truth)
    drained = drain_hops(ends, wanted, before, say, with_sessions=with_sessions, quiet_s=quiet_s)
    lines = compare(wanted, drained.hops)
    if not with_sessions:
        lines = tuple(line for line in lines if line.measure != "sessions_completed")
    tally = drained.tally
    conversions = tally.by_type["conversion"]
    counts = tally.duplicates, tally.late, tally.ahead, tally.expired, conversions
    checks = planted_checks(truth, *counts, tally.dead_letters)
    return Report(lines, checks)


def lake_url(ends: Endpoints) -> str:
    """Where the lake's worker answers."""
    return f"http://{ends.host}:{ends.port('lake_metrics')}"
