-- One row per event. The sink adds up what has the same minute and dimensions and counts the types of events, so nothing
-- is kept here.
SELECT
  event_time_ms - MOD(event_time_ms, 60000) AS minute_ms,
  ${dimensions},
  event_type,
  CAST(1 AS BIGINT) AS events,
  CASE WHEN received_time_ms - event_time_ms > ${lateness_ms} THEN CAST(1 AS BIGINT) END AS late_events,
  CASE WHEN marked_invalid THEN CAST(1 AS BIGINT) END AS invalid_events,
  cost_micros AS spend_micros,
  conversion_value_micros,
  event_time_ms AS last_event_time_ms,
  published_time_ms AS last_published_ms,
  CASE WHEN event_type = 'impression' THEN ${user_pseudonym} END AS reach_users
FROM deduplicated_events
