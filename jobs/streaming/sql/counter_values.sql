-- Each event becomes one row per counter that counts it; one aggregation then holds all counters.
-- It groups by the message key alone and takes the columns out of it again: Flink sees then that a change of a value
-- replaces the message of that key (else it would send a tombstone before each), and the state holds each id once.
-- The hint keeps a bucket's value for as long as an event can still come for it; without it the application's shorter
-- life of event ids would start a bucket from nothing again.
WITH counted AS (
  SELECT
    CONCAT_WS(
      CHR(31), c.entity_type, c.entity_id, c.counter, c.scope_id, CAST(c.bucket_start_ms AS STRING)
    ) AS counter_key,
    e.published_time_ms
  FROM deduplicated_events AS e
  CROSS JOIN UNNEST(ARRAY[
    ${counters}
  ]) AS c (counter, entity_type, entity_id, scope_id, bucket_start_ms)
  WHERE e.event_type IN (${event_types}) AND c.entity_id <> '' AND c.scope_id IS NOT NULL
),
counts AS (
  SELECT /*+ STATE_TTL('counted' = '${state_ttl}') */
    counter_key,
    COUNT(*) AS `value`,
    MAX(published_time_ms) AS updated_ms
  FROM counted
  GROUP BY counter_key
)
SELECT
  counter_key,
  SPLIT_INDEX(counter_key, 31, 0) AS entity_type,
  SPLIT_INDEX(counter_key, 31, 1) AS entity_id,
  SPLIT_INDEX(counter_key, 31, 2) AS counter,
  SPLIT_INDEX(counter_key, 31, 3) AS scope_id,
  CAST(SPLIT_INDEX(counter_key, 31, 4) AS BIGINT) AS bucket_start_ms,
  `value`,
  updated_ms
FROM counts
