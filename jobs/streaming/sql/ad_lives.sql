SELECT `event`, `session`, rowtime
FROM ad_lives(
  input => TABLE timed_events PARTITION BY life_id,
  gap_ms => CAST(${gap_ms} AS BIGINT),
  remember_ms => CAST(${remember_ms} AS BIGINT),
  on_time => DESCRIPTOR(rowtime),
  uid => 'ad_lives'
)
