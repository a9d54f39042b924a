-- One row per ad when the gap after its last event has passed; a later event makes another with the next revision.
-- A row of revision 0 takes deltas back.
SELECT
  `session`.`record_id` AS record_id,
  `session`.`user_pseudonym` AS user_pseudonym,
  ${texts},
  `session`.`packed_dimensions` AS packed_dimensions,
  CAST(`session`.`creative_version` AS INT) AS creative_version,
  `session`.`first_event_time_ms` AS first_event_time_ms,
  `session`.`last_event_time_ms` AS last_event_time_ms,
  `session`.`furthest` >= 0 AS started,
  CAST(GREATEST(`session`.`furthest`, 0) AS INT) AS furthest_quartile,
  CASE
    WHEN `session`.`furthest` = 100 THEN 'completed'
    WHEN `session`.`errors` > 0 THEN 'errored'
    WHEN `session`.`furthest` >= 0 THEN 'abandoned'
    ELSE 'shown'
  END AS state,
  ${counts},
  `session`.`viewables` > 0 AS viewable,
  `session`.`last_event_time_ms` - `session`.`first_event_time_ms` AS dwell_ms,
  `session`.`last_published_ms` + ${gap_ms} AS closed_time_ms,
  CAST(`session`.`watch_percent` AS INT) AS watch_percent,
  `session`.`watch_percent` * `session`.`creative_length_s` * 10 AS watch_time_ms,
  CAST(`session`.`sources` AS INT) AS sources,
  CAST(`session`.`revision` AS INT) AS revision,
  `session`.`minute_ms` AS minute_ms,
  `session`.`sessions_delta` AS sessions_delta,
  `session`.`sessions_completed_delta` AS sessions_completed_delta,
  `session`.`watch_time_ms_delta` AS watch_time_ms_delta
FROM lives
WHERE `session` IS NOT NULL
