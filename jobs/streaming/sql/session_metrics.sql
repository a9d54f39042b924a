-- Maxima and users are those of the events' own rows, so they stay neutral here.
-- A session counts where its impression is, so an ad whose late events open a second session still counts once.
SELECT
  first_event_time_ms - MOD(first_event_time_ms, 60000) AS minute_ms,
  ${dimensions},
  ${zeros},
  CASE WHEN impressions > 0 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS sessions,
  CASE WHEN state = 'completed' THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS sessions_completed,
  CASE WHEN impressions > 0 THEN watch_time_ms ELSE CAST(0 AS BIGINT) END AS watch_time_ms,
  CAST(0 AS BIGINT) AS last_event_time_ms,
  CAST(0 AS BIGINT) AS last_published_ms,
  CAST(NULL AS ARRAY<STRING>) AS reach_users
FROM closed_sessions
WHERE impressions > 0 OR state = 'completed'
