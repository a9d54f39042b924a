-- Each event becomes one row per counter that counts it; one aggregation then holds all counters.
-- The hint keeps a bucket's value for as long as an event can still come for it; without it the application's shorter
-- life of event ids would start a bucket from nothing again.
WITH counted AS (
  SELECT
    c.entity_type,
    c.entity_id,
    c.counter,
    c.scope_id,
    c.bucket_start_ms,
    e.published_time_ms
  FROM deduplicated_events AS e
  CROSS JOIN UNNEST(ARRAY[
    ${counters}
  ]) AS c (counter, entity_type, entity_id, scope_id, bucket_start_ms)
  WHERE e.event_type IN (${event_types}) AND c.entity_id <> '' AND c.scope_id IS NOT NULL
)
SELECT /*+ STATE_TTL('counted' = '${state_ttl}') */
  CONCAT_WS('|', entity_type, entity_id, counter, scope_id, CAST(bucket_start_ms AS STRING)) AS counter_key,
  entity_type,
  entity_id,
  counter,
  scope_id,
  bucket_start_ms,
  COUNT(*) AS `value`,
  MAX(published_time_ms) AS updated_ms
FROM counted
GROUP BY entity_type, entity_id, counter, scope_id, bucket_start_ms
