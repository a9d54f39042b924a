-- A session counts where its impression is. Deltas: what the ad's earlier revisions have said is taken off.
SELECT
  minute_ms,
  ${dimensions},
  sessions_delta AS sessions,
  sessions_completed_delta AS sessions_completed,
  watch_time_ms_delta AS watch_time_ms
FROM closed_sessions
WHERE sessions_delta <> 0 OR sessions_completed_delta <> 0 OR watch_time_ms_delta <> 0
