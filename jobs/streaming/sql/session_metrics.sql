-- Maxima and users are those of the events' own rows, so they stay neutral here.
-- A session counts where its impression is. Deltas: what the ad's earlier revisions have said is taken off.
SELECT
  minute_ms,
  ${dimensions},
  ${zeros},
  sessions_delta AS sessions,
  sessions_completed_delta AS sessions_completed,
  watch_time_ms_delta AS watch_time_ms,
  CAST(0 AS BIGINT) AS last_event_time_ms,
  CAST(0 AS BIGINT) AS last_published_ms,
  CAST(NULL AS ARRAY<STRING>) AS reach_users
FROM closed_sessions
WHERE sessions_delta <> 0 OR sessions_completed_delta <> 0 OR watch_time_ms_delta <> 0
