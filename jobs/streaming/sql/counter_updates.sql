-- One row per entity that an event belongs to, with all that it adds to that entity's counters.
SELECT
  text_bucket(u.entity_key, ${buckets}) AS entity_bucket, u.entity_key, u.updates, e.event_time_ms, e.published_time_ms
FROM deduplicated_events AS e
CROSS JOIN LATERAL TABLE(counter_updates(
  '${declaration}',
  e.event_type,
  e.event_time_ms,
  e.published_time_ms,
  e.cost_micros,
  ${ids}
)) AS u (entity_key, updates)
WHERE e.event_type IN (${event_types})
