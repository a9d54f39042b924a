-- Grouped by the message key alone, for the reason given in counter_values.sql.
WITH spent AS (
  SELECT
    CONCAT_WS('|', campaign_id, DATE_FORMAT(TO_TIMESTAMP_LTZ(event_time_ms, 3), 'yyyyMMdd')) AS spend_key,
    currency,
    cost_micros,
    event_type,
    published_time_ms
  FROM deduplicated_events
  WHERE cost_micros > 0 OR event_type = 'impression'
),
sums AS (
  SELECT /*+ STATE_TTL('spent' = '${state_ttl}') */
    spend_key,
    SUM(cost_micros) AS spend_micros,
    MAX(currency) AS currency,
    COUNT(*) FILTER (WHERE event_type = 'impression') AS impressions,
    MAX(published_time_ms) AS updated_ms
  FROM spent
  GROUP BY spend_key
)
SELECT
  spend_key,
  LEFT(spend_key, CHAR_LENGTH(spend_key) - 9) AS campaign_id,
  RIGHT(spend_key, 8) AS `day`,
  spend_micros,
  currency,
  impressions,
  updated_ms
FROM sums
