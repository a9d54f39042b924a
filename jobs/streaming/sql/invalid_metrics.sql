SELECT
  event_time_ms - MOD(event_time_ms, 60000) AS minute_ms,
  ${dimensions},
  CASE WHEN traffic_class = 'general' AND event_type = 'impression' THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END
    AS givt_impressions,
  CASE WHEN traffic_class = 'sophisticated' AND event_type = 'impression' THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT)
    END AS sivt_impressions,
  CASE WHEN traffic_class = 'general' AND event_type = 'click' THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END
    AS givt_clicks,
  CASE WHEN traffic_class = 'sophisticated' AND event_type = 'click' THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END
    AS sivt_clicks,
  cost_micros AS invalid_spend_micros
FROM invalid_verdicts
WHERE event_type IN ('impression', 'click') OR cost_micros > 0
