"""What Druid is told to ingest: the supervisor of each datasource, derived from the contracts.

Pure: no I/O. `connectors/druid.py` sends the specs.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from schemas import campaign_metrics
from schemas.topics import CAMPAIGN_METRICS

#: Sketch columns made from `campaign_metrics.REACH_COLUMN`. HLL sketches are small and only add up: reports use them.
#: Theta sketches can be intersected and subtracted too: analysts use them.
REACH_THETA = "reach_theta"
REACH_HLL = "reach_hll"

THETA_SIZE = 4096  # relative standard error 1/sqrt(4096) = 1.6 %
HLL_LG_K = 12  # 1.04/sqrt(2^12) = 1.6 %

#: The hour whose segment has the columns and nothing else. No report reaches back so far.
COLUMNS_INTERVAL = "1970-01-01T00:00:00.000Z/1970-01-01T01:00:00.000Z"

#: Key of a supervisor's context that holds the hash of the spec as we wrote it (Druid returns it with its defaults).
FINGERPRINT = "headwaterSpec"

Spec = dict[str, Any]


def campaign_metrics_supervisor(
    kafka_bootstrap: str, *, datasource: str = campaign_metrics.DATASOURCE, topic: str = CAMPAIGN_METRICS.name
) -> Spec:
    """The supervisor spec of `campaign_metrics_v1`: additive deltas, rolled up by minute, in segments of an hour.

    Another datasource and topic of the same form may be named: for a rebuild beside the live one.

    Rows of open transactions are not read (`read_committed`). Concurrent locks let a correction replace a past hour
    while this supervisor appends to newer ones.
    """
    metrics: list[Spec] = [{"type": "longSum", "name": name, "fieldName": name} for name in campaign_metrics.SUMS]
    metrics += [{"type": "longMax", "name": name, "fieldName": name} for name in campaign_metrics.MAXIMA]
    metrics += [
        {
            "type": "thetaSketch",
            "name": REACH_THETA,
            "fieldName": campaign_metrics.REACH_COLUMN,
            "size": THETA_SIZE,
        },
        {
            "type": "HLLSketchBuild",
            "name": REACH_HLL,
            "fieldName": campaign_metrics.REACH_COLUMN,
            "lgK": HLL_LG_K,
            "tgtHllType": "HLL_4",
        },
    ]
    spec: Spec = {
        "type": "kafka",
        "spec": {
            "dataSchema": {
                "dataSource": datasource,
                "timestampSpec": {"column": campaign_metrics.TIME_COLUMN, "format": "millis"},
                "dimensionsSpec": {
                    "dimensions": [{"type": "string", "name": name} for name in campaign_metrics.DIMENSIONS]
                },
                "metricsSpec": metrics,
                "granularitySpec": {
                    "type": "uniform",
                    "segmentGranularity": "HOUR",
                    "queryGranularity": "MINUTE",
                    "rollup": True,
                },
            },
            "ioConfig": {
                "topic": topic,
                "inputFormat": {"type": "json"},
                "consumerProperties": {
                    "bootstrap.servers": kafka_bootstrap,
                    "isolation.level": "read_committed",
                    "metadata.max.age.ms": "30000",
                },
                "useEarliestOffset": True,
                "taskCount": 1,
                "replicas": 1,
                "taskDuration": "PT1H",
                "completionTimeout": "PT30M",
                "startDelay": "PT1S",
                "period": "PT5S",
            },
            "tuningConfig": {
                "type": "kafka",
                "maxRowsInMemory": 50_000,
                "offsetFetchPeriod": "PT5S",
                "logParseExceptions": True,
                "maxSavedParseExceptions": 20,
            },
        },
        "context": {"useConcurrentLocks": True},
    }
    spec["context"][FINGERPRINT] = fingerprint(spec)
    return spec


def columns_task(supervisor: Spec) -> Spec:
    """A task that publishes the columns of a supervisor's datasource: a segment of one row without a value.

    A task that has written a part of a segment to disk says of a sketch that its type contradicts itself ("HLLSketch"
    there, "HLLSketchBuild" in memory), and Druid's SQL then knows no such column until a segment is published
    (apache/druid issue 14315; Druid 33 has it). It also makes the datasource known before its first row.
    """
    schema = dict(supervisor["spec"]["dataSchema"])
    schema["granularitySpec"] = schema["granularitySpec"] | {"intervals": [COLUMNS_INTERVAL]}
    row = json.dumps({schema["timestampSpec"]["column"]: 0})
    return {
        "type": "index_parallel",
        "spec": {
            "dataSchema": schema,
            "ioConfig": {
                "type": "index_parallel",
                "inputSource": {"type": "inline", "data": row},
                "inputFormat": {"type": "json"},
                "appendToExisting": False,
            },
            "tuningConfig": {"type": "index_parallel"},
        },
        "context": {"useConcurrentLocks": True},
    }


def columns_of(supervisor: Spec) -> set[str]:
    """Names of the columns of a supervisor's datasource, `__time` left out."""
    schema = supervisor["spec"]["dataSchema"]
    return {column["name"] for column in (*schema["dimensionsSpec"]["dimensions"], *schema["metricsSpec"])}


def supervisors(kafka_bootstrap: str) -> dict[str, Spec]:
    """Every supervisor that must run, by its id (Druid uses the datasource's name)."""
    return {campaign_metrics.DATASOURCE: campaign_metrics_supervisor(kafka_bootstrap)}


def fingerprint(spec: Spec) -> str:
    """A hash of what a spec says, its own fingerprint left out: equal specs have equal ones."""
    context = {key: value for key, value in spec.get("context", {}).items() if key != FINGERPRINT}
    text = json.dumps({**spec, "context": context}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
