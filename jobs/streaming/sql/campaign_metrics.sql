WITH measured AS (
  SELECT
    event_time_ms - MOD(event_time_ms, 60000) AS minute_ms,
    ${dimensions},
    event_type,
    received_time_ms - event_time_ms > ${lateness_ms} AS late,
    REGEXP(ARRAY_JOIN(quality_reasons, ','), '(^|,)ivt_') AS invalid,
    cost_micros,
    COALESCE(conversion_value_micros, 0) AS value_micros,
    event_time_ms,
    published_time_ms,
    CASE WHEN event_type = 'impression' THEN user_pseudonym END AS reached_user,
    window_time
  FROM deduplicated_events
)
SELECT
  minute_ms,
  ${dimension_names},
  COUNT(*) AS events,
  ${counts},
  COUNT(*) FILTER (WHERE late) AS late_events,
  COUNT(*) FILTER (WHERE invalid) AS invalid_events,
  SUM(cost_micros) AS spend_micros,
  SUM(value_micros) AS conversion_value_micros,
  ${zeros},
  MAX(event_time_ms) AS last_event_time_ms,
  MAX(published_time_ms) AS last_published_ms,
  ARRAY_AGG(DISTINCT reached_user) FILTER (WHERE reached_user IS NOT NULL) AS reach_users
FROM TABLE(TUMBLE(TABLE measured, DESCRIPTOR(window_time), INTERVAL '${window_s}' SECOND))
GROUP BY window_start, window_end, minute_ms, ${dimension_names}
