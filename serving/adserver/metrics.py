"""Names of what the ad server measures. Types and units are in the names, as Prometheus wants them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)

REQUESTS = Counter("adserver_requests_total", "Requests by door and HTTP status", ["door", "status"])
DECISIONS = Counter("adserver_decisions_total", "Imps decided, by what was shown", ["shown"])
DEGRADED = Counter("adserver_degraded_total", "Decisions made with less than everything", ["reason"])
DECISION_SECONDS = Histogram("adserver_decision_seconds", "Request read to answer ready", buckets=_SECONDS)
SHED = Counter("adserver_shed_total", "Requests refused because they could not be answered in time", ["why"])
NOTICES = Counter("adserver_notices_total", "Win and loss notices to DSPs, by what came of them", ["outcome"])
DOUBTED = Counter("adserver_doubted_total", "Requests that no person seems to have made, refused or not", ["reason"])
UNWRAPPED = Counter("adserver_unwrapped_total", "Chains of wrappers, followed and served", ["outcome"])
ADOPTED = Counter("adserver_adopted_total", "Ads of outside ad servers, and documents that were not used", ["outcome"])
LOST_RESERVATIONS = Counter("adserver_lost_reservations_total", "Wins given up because the budget was gone")
LOST_CAPS = Counter("adserver_lost_caps_total", "Wins given up because other requests of the viewer reached a cap")
RESERVED = Gauge("adserver_reserved_micros", "Reserved for wins and leased to servers, of all campaigns")
EXPIRED_RESERVATIONS = Gauge("adserver_expired_reservations_micros", "Released unshown, as the ledgers remember")
LATE_SPEND = Gauge("adserver_late_spend_micros", "Committed without a reservation, as the ledgers remember")
PACING_SHARE = Gauge("adserver_pacing_share", "Share of its opportunities that a paced campaign takes", ["campaign"])
LOGGED = Counter("adserver_decisions_logged_total", "Decisions that Kafka acknowledged")
NOT_LOGGED = Counter("adserver_decisions_not_logged_total", "Decisions that did not reach Kafka", ["why"])
IN_FLIGHT = Gauge("adserver_in_flight_micros", "Cost of wins that may still be shown, by campaign", ["campaign"])
PREDICTED = Gauge("adserver_predicted_in_flight_micros", "The share of it that is likely to be spent", ["campaign"])
MODEL_PACKED = Gauge("adserver_model_packed", "1: the tree kernel scores the model; 0: LightGBM's own library does")
FEATURE_BREAKER = Gauge("adserver_feature_breaker_state", "Features are asked for: 0 yes, 1 by probes, 2 not at all")
MODEL_TRAINED = Gauge("adserver_model_trained_timestamp_seconds", "When the model in service was trained")
CATALOG_VERSION = Gauge("adserver_catalog_version", "Version of the catalogue in service")
TASKS_ENDED = Counter(
    "adserver_background_tasks_ended_total", "Tasks beside requests that ended, and began again", ["task"]
)
MARKUP_FAILED = Counter(
    "adserver_markup_failed_total", "Winners passed over because making their markup failed", ["kind"]
)
