-- What changes a campaign's spend: events that cost something or show an ad, and wins of auctions that will.
SELECT
  ${campaign_id} AS campaign_id,
  ${record_id} AS record_id,
  FALSE AS decided,
  event_time_ms AS time_ms,
  event_type = 'impression' AS shown,
  cost_micros,
  ${currency} AS currency,
  published_time_ms AS updated_ms
FROM deduplicated_events
WHERE cost_micros > 0 OR event_type = 'impression'
UNION ALL
SELECT
  winner_campaign_id AS campaign_id,
  record_id,
  TRUE AS decided,
  decision_time_ms AS time_ms,
  FALSE AS shown,
  price_cpm_micros / 1000 AS cost_micros,
  currency,
  decision_time_ms AS updated_ms
FROM ad_decisions
WHERE winner_campaign_id <> '' AND record_id <> '' AND price_cpm_micros >= 1000
