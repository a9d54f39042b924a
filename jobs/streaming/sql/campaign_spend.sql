WITH spent AS (
  SELECT
    campaign_id,
    DATE_FORMAT(TO_TIMESTAMP_LTZ(event_time_ms, 3), 'yyyyMMdd') AS `day`,
    currency,
    cost_micros,
    event_type,
    published_time_ms
  FROM deduplicated_events
  WHERE cost_micros > 0 OR event_type = 'impression'
)
SELECT /*+ STATE_TTL('spent' = '${state_ttl}') */
  CONCAT_WS('|', campaign_id, `day`) AS spend_key,
  campaign_id,
  `day`,
  SUM(cost_micros) AS spend_micros,
  MAX(currency) AS currency,
  COUNT(*) FILTER (WHERE event_type = 'impression') AS impressions,
  MAX(published_time_ms) AS updated_ms
FROM spent
GROUP BY campaign_id, `day`
