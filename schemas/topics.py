"""Every Kafka topic, declared once. Topics are created and subjects registered from here before anything runs.

House rules (tests check them): no dots; version suffix; a dead-letter topic for every consumed source; event topics
are FULL_TRANSITIVE, so that readers and writers can roll out in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: what it carries, how it is keyed and kept, who writes and who reads.

    `schema` is the .avsc file's stem in schemas/avro, or None for JSON and raw bytes.
    `retention_ms` is None for compacted topics.
    """

    name: str
    what: str
    key: str
    schema: str | None
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: int = 4
    retention_ms: int | None = 7 * DAY_MS
    compatibility: Literal["FULL_TRANSITIVE", "BACKWARD_TRANSITIVE", "NONE"] = "FULL_TRANSITIVE"
    dead_letter: str | None = None

    @property
    def subject(self) -> str:
        """The registry's subject of the value schema."""
        return f"{self.name}-value"

    @property
    def compacted(self) -> bool:
        return self.retention_ms is None

    @property
    def config(self) -> dict[str, str]:
        """Kafka's topic configuration."""
        if self.compacted:
            return {
                "cleanup.policy": "compact",
                "min.cleanable.dirty.ratio": "0.2",
                "segment.ms": str(HOUR_MS),
            }
        return {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


AD_DECISIONS = Topic(
    name="ad-decisions-v1",
    what="request, candidates, bids, winner, reasons, propensities, feature status, model version",
    key="request_id",
    schema="ad_decision",
    producers=("adserver",),
    consumers=("lake",),
)
AD_TELEMETRY = Topic(
    name="ad-telemetry-v1",
    what="what a client or an upstream logger sent, untouched but for pseudonyms",
    key="token or upstream id",
    schema="ad_telemetry",
    producers=("collector",),
    consumers=("publisher",),
    dead_letter="ad-telemetry-v1-dlq",
)
AD_CONVERSIONS = Topic(
    name="ad-conversions-v1",
    what="server-side and pixel conversions, match keys already hashed",
    key="user_pseudonym",
    schema="ad_conversion",
    producers=("collector",),
    consumers=("publisher", "lake"),
    dead_letter="ad-conversions-v1-dlq",
)
AD_EVENTS = Topic(
    name="ad-events-v1",
    what="the one contract: every ad event, enriched",
    key="user_pseudonym (of a hot user with #salt), or record_id for users without one",
    schema="ad_event",
    producers=("publisher",),
    consumers=("streaming", "lake", "vendors"),
    dead_letter="ad-events-v1-dlq",
)
AD_EVENTS_LATE = Topic(
    name="ad-events-late-v1",
    what="copies of events that came later than the lateness limit",
    key="record_id",
    schema="ad_event",
    producers=("event_quality",),
    consumers=("lake",),
)
AD_SESSIONS = Topic(
    name="ad-sessions-v1",
    what="one ad's whole life, one row when it closes",
    key="record_id",
    schema="ad_session",
    producers=("ad_sessions",),
    consumers=("lake",),
)
CAMPAIGN_METRICS = Topic(
    name="campaign-metrics-v1",
    what="additive deltas per minute and dimensions, JSON for Druid (schemas/campaign_metrics.py)",
    key="none",
    schema=None,
    producers=("campaign_metrics", "ad_sessions", "attribution", "invalid_traffic"),
    consumers=("druid",),
    compatibility="NONE",
)
ATTRIBUTIONS = Topic(
    name="attributions-v1",
    what="which touch a conversion is credited to; the highest revision counts",
    key="order_id",
    schema="attribution",
    producers=("attribution",),
    consumers=("publisher", "lake"),
    retention_ms=30 * DAY_MS,
    dead_letter="attributions-v1-dlq",
)
INVALID_TRAFFIC = Topic(
    name="invalid-traffic-v1",
    what="verdicts on events, general and sophisticated apart; nothing is deleted",
    key="record_id",
    schema="invalid_traffic",
    producers=("invalid_traffic",),
    consumers=("lake", "materializer"),
)
DELIVERY_HEALTH = Topic(
    name="delivery-health-v1",
    what="campaigns that stopped delivering, or whose errors spike",
    key="campaign_id",
    schema="delivery_health",
    producers=("delivery_health",),
    consumers=("operators",),
    partitions=1,
)
FREQUENCY_COUNTS = Topic(
    name="frequency-counts-v2",
    what="absolute impressions per user or household, scope and bucket",
    key="counter_key",
    schema="counter_bucket",
    producers=("frequency_counts",),
    consumers=("materializer",),
    retention_ms=None,
)
STREAMING_FEATURES = Topic(
    name="streaming-features-v2",
    what="absolute feature counters per entity and bucket",
    key="counter_key",
    schema="counter_bucket",
    producers=("streaming_features",),
    consumers=("materializer",),
    retention_ms=None,
)
CAMPAIGN_SPEND = Topic(
    name="campaign-spend-v1",
    what="absolute spend per campaign: committed by UTC day and ever, won and confirmed by minute of decision",
    key="campaign_id|day, campaign_id|open|minute",
    schema="campaign_spend",
    producers=("campaign_spend",),
    consumers=("materializer",),
    retention_ms=None,
)

TRACKER_CALLS = Topic(
    name="tracker-calls-v1",
    what="third-party trackers to be called, one record for each event and tracker",
    key="partner",
    schema="tracker_call",
    producers=("vendors",),
    consumers=("vendors",),
    dead_letter="tracker-calls-v1-dlq",
)
STREAM_LEASES = Topic(
    name="stream-leases-v1",
    what="signs of life of the stream jobs' deployments: no job is deployed twice, whatever cluster it is on",
    key="deployment",
    schema="stream_lease",
    producers=("every stream job",),
    consumers=("python -m jobs.streaming",),
    partitions=1,
    retention_ms=None,
)


def _dead_letter(source: Topic, producers: tuple[str, ...]) -> Topic:
    assert source.dead_letter is not None
    return Topic(
        name=source.dead_letter,
        what=f"refused records of {source.name}: reason, schema id, offset, raw bytes",
        key="as source",
        schema="dead_letter",
        producers=producers,
        consumers=("operators",),
        partitions=1,
        retention_ms=30 * DAY_MS,
    )


AD_TELEMETRY_DLQ = _dead_letter(AD_TELEMETRY, ("publisher", "collector"))
AD_CONVERSIONS_DLQ = _dead_letter(AD_CONVERSIONS, ("publisher", "collector"))
AD_EVENTS_DLQ = _dead_letter(AD_EVENTS, ("event_quality", "lake"))
ATTRIBUTIONS_DLQ = _dead_letter(ATTRIBUTIONS, ("publisher",))
TRACKER_CALLS_DLQ = _dead_letter(TRACKER_CALLS, ("vendors",))

TOPICS: tuple[Topic, ...] = (
    AD_DECISIONS,
    AD_TELEMETRY,
    AD_CONVERSIONS,
    AD_EVENTS,
    AD_EVENTS_LATE,
    AD_SESSIONS,
    CAMPAIGN_METRICS,
    ATTRIBUTIONS,
    INVALID_TRAFFIC,
    DELIVERY_HEALTH,
    FREQUENCY_COUNTS,
    STREAMING_FEATURES,
    CAMPAIGN_SPEND,
    STREAM_LEASES,
    TRACKER_CALLS,
    AD_TELEMETRY_DLQ,
    AD_CONVERSIONS_DLQ,
    AD_EVENTS_DLQ,
    ATTRIBUTIONS_DLQ,
    TRACKER_CALLS_DLQ,
)
BY_NAME: dict[str, Topic] = {t.name: t for t in TOPICS}
