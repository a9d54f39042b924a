"""Waits until everything that was sent has arrived everywhere, then counts.

A stage is settled when its counts equal what is expected, or have not moved for `quiet_s`: then they are reported as
they are. The wait never makes a wrong count right; it only bounds how long a right one may take.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from connectors.endpoints import Endpoints
from connectors.kafka import lag
from infra.demo import hops
from infra.demo.hops import ByCampaign, Snapshot
from infra.demo.reconcile import Report, compare, planted_checks, truth_by_campaign
from infra.demo.tally import KafkaTally
from infra.simulator.ledger import Truth
from jobs.lake.drain import drain as drain_lake
from schemas.errors import ConnectorError, TimedOut
from schemas.topics import AD_CONVERSIONS, AD_EVENTS, AD_EVENTS_LATE, AD_SESSIONS, AD_TELEMETRY

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


def reconcile(
    ends: Endpoints,
    truth: Truth,
    before: Snapshot,
    say: Say = lambda text: None,
    quiet_s: float = 75.0,
    with_sessions: bool = True,
) -> Report:
    """Drains the stack and compares every hop with the truth of what was sent since `before`. Blocks.

    `quiet_s` must exceed the silence that closes the last sessions (source idle time + session gap + a checkpoint).
    Without `with_sessions` nothing waits for sessions to close, and they are left out.
    Errors: ConnectorError when a part stays away.
    """
    wanted = truth_by_campaign(truth)
    say("publisher: reading what the collector wrote")
    wait_published()
    found: dict[str, ByCampaign] = {}
    with KafkaTally(ends, before.offsets) as tally:
        say("ad-events: counting")
        tally.read_to_end((AD_EVENTS.name,))

        def exact(hop: str) -> Callable[[ByCampaign], bool]:
            return lambda counts: all(line.exact for line in compare(wanted, {hop: counts}))

        def added(hop: str, counts: ByCampaign) -> ByCampaign:
            return hops.minus(counts, before.stores.get(hop, {}))

        def sessions() -> ByCampaign:
            tally.read_to_end((AD_SESSIONS.name, AD_EVENTS_LATE.name))
            return hops.kafka_counts(tally)[hops.SESSIONS]

        say("Valkey: waiting for the materializer")
        found[hops.VALKEY] = settle(
            lambda: added(hops.VALKEY, hops.valkey_counts(ends)), exact(hops.VALKEY), quiet_s
        )
        if with_sessions:
            say("sessions: waiting for the last ones to close")
            found[hops.SESSIONS] = settle(sessions, exact(hops.SESSIONS), quiet_s)
        say("Druid: waiting for ingestion")
        found[hops.DRUID] = settle(
            lambda: added(hops.DRUID, hops.druid_counts(ends)), exact(hops.DRUID), quiet_s
        )
        say("lake: committing")
        drain_lake(_lake_status_url(ends), timeout_s=120.0)
        found[hops.LAKE] = added(hops.LAKE, hops.lake_counts(ends))
        tally.read_to_end()
        found[hops.KAFKA] = hops.kafka_counts(tally)[hops.KAFKA]
        ordered = {hop: found[hop] for hop in hops.HELD if hop in found}
        lines = compare(wanted, ordered)
        if not with_sessions:
            lines = tuple(line for line in lines if line.measure != "sessions_completed")
        return Report(lines, planted_checks(truth, tally.duplicates, tally.late, tally.dead_letters))


def _lake_status_url(ends: Endpoints) -> str:
    return f"http://{ends.host}:{ends.port('lake_metrics')}"
