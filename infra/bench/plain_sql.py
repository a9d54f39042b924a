"""What ours is measured beside: well-known queries in plain Flink SQL, over JSON, with stock connectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from connectors.endpoints import Endpoints
from infra.bench.stream_input import JSON_TOPIC, YAHOO_TOPIC

_BLACKHOLE = "WITH ('connector' = 'blackhole')"


#: The bounded table of query 13: so many keys, of which the first hundred are campaigns.
SIDE_KEYS = 1_000


def side_input(folder: Path) -> Path:
    """A file of lines `key,number` for the table of query 13."""
    path = folder / "side_input.csv"
    path.write_text("".join(f"{key:03d},{86_400 + key}\n" for key in range(SIDE_KEYS)))
    return path


@dataclass(frozen=True, slots=True)
class PlainQuery:
    """A query with what it needs: statements (`{bootstrap}`: broker, `{side_input}`: file), its INSERT, the topic it
    writes if any.
    """

    statements: tuple[str, ...]
    insert: str
    topic: str = ""

    def ddl(self, where: Endpoints) -> list[str]:
        places = {"{bootstrap}": where.kafka_bootstrap, "{side_input}": str(side_input(where.home))}
        return [reduce(lambda text, place: text.replace(*place), places.items(), each) for each in self.statements]


#: The Yahoo benchmark's fields, by topic: its own, or those of AdEvent that say the same.
_FIELDS = {
    YAHOO_TOPIC: "user_id STRING, page_id STRING, ad_id STRING, ad_type STRING, event_type STRING, event_time BIGINT, "
    "ip_address STRING, rowtime AS TO_TIMESTAMP_LTZ(event_time, 3)",
    JSON_TOPIC: "user_pseudonym STRING, placement_id STRING, creative_id STRING, creative_format STRING, "
    "event_type STRING, event_time_ms BIGINT, session_context STRING, "
    "user_id AS user_pseudonym, page_id AS placement_id, ad_id AS creative_id, event_time AS event_time_ms, "
    "rowtime AS TO_TIMESTAMP_LTZ(event_time_ms, 3)",
}


def source_ddl(where: Endpoints, topic: str) -> str:
    """The events of a JSON topic to its end, by the names of the Yahoo benchmark."""
    return f"""CREATE TEMPORARY TABLE yahoo (
      {_FIELDS[topic]},
      WATERMARK FOR rowtime AS rowtime - INTERVAL '5' SECOND
    ) WITH (
      'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{where.kafka_bootstrap}',
      'properties.group.id' = 'yahoo', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
      'format' = 'json'
    )"""


YAHOO = PlainQuery(
    (
        """CREATE TEMPORARY TABLE yahoo_counts (campaign_id STRING, window_start TIMESTAMP_LTZ(3), shown BIGINT) WITH (
          'connector' = 'kafka', 'topic' = 'bench-yahoo-counts', 'properties.bootstrap.servers' = '{bootstrap}',
          'sink.delivery-guarantee' = 'at-least-once', 'format' = 'json'
        )""",
        # ad to campaign as an expression: cheaper than any join
        """CREATE TEMPORARY VIEW shown AS
          SELECT SUBSTRING(ad_id, 4, 3) AS campaign_id, rowtime FROM yahoo WHERE event_type = 'impression'""",
    ),
    """INSERT INTO yahoo_counts SELECT campaign_id, window_start, COUNT(*)
       FROM TABLE(TUMBLE(TABLE shown, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))
       GROUP BY window_start, window_end, campaign_id""",
    topic="bench-yahoo-counts",
)

NEXMARK: dict[str, PlainQuery] = {
    "q13": PlainQuery(
        (
            "CREATE TEMPORARY TABLE nothing (user_id STRING, ad_id STRING, page_id STRING, event_time BIGINT, "
            f"number BIGINT) {_BLACKHOLE}",
            "CREATE TEMPORARY TABLE side_input (k STRING, number BIGINT) "
            "WITH ('connector' = 'side-input', 'path' = '{side_input}')",
        ),
        """INSERT INTO nothing SELECT user_id, ad_id, page_id, event_time, number
           FROM (SELECT *, PROCTIME() AS p_time FROM yahoo WHERE event_type IN ('impression', 'click')) AS b
           JOIN side_input FOR SYSTEM_TIME AS OF b.p_time AS s ON SUBSTRING(b.ad_id, 4, 3) = s.k""",
    ),
    "q11": PlainQuery(
        (f"CREATE TEMPORARY TABLE nothing (user_id STRING, n BIGINT, s TIMESTAMP(3), e TIMESTAMP(3)) {_BLACKHOLE}",),
        """INSERT INTO nothing SELECT user_id, COUNT(*), window_start, window_end
           FROM TABLE(SESSION(TABLE yahoo PARTITION BY user_id, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))
           GROUP BY user_id, window_start, window_end""",
    ),
    "q15": PlainQuery(
        (
            "CREATE TEMPORARY TABLE nothing (`day` STRING, n BIGINT, n1 BIGINT, n2 BIGINT, n3 BIGINT, users BIGINT, "
            f"u1 BIGINT, u2 BIGINT, u3 BIGINT, PRIMARY KEY (`day`) NOT ENFORCED) {_BLACKHOLE}",
        ),
        """INSERT INTO nothing SELECT DATE_FORMAT(rowtime, 'yyyy-MM-dd'), COUNT(*),
             COUNT(*) FILTER (WHERE event_type = 'impression'), COUNT(*) FILTER (WHERE event_type = 'viewable'),
             COUNT(*) FILTER (WHERE event_type = 'click'), COUNT(DISTINCT user_id),
             COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'impression'),
             COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'viewable'),
             COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'click')
           FROM yahoo GROUP BY DATE_FORMAT(rowtime, 'yyyy-MM-dd')""",
    ),
    "q18": PlainQuery(
        (
            "CREATE TEMPORARY TABLE nothing (user_id STRING, ad_id STRING, page_id STRING, event_type STRING, "
            f"event_time BIGINT, PRIMARY KEY (user_id, ad_id) NOT ENFORCED) {_BLACKHOLE}",
        ),
        """INSERT INTO nothing SELECT user_id, ad_id, page_id, event_type, event_time FROM (
             SELECT *, ROW_NUMBER() OVER (PARTITION BY user_id, ad_id ORDER BY rowtime DESC) AS n FROM yahoo
           ) WHERE n <= 1""",
    ),
}
