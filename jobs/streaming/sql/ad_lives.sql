-- The uid says how many buckets there are: with another number, lives would be looked for where they are not.
SELECT `event`, `session`, rowtime
FROM ad_lives(
  input => TABLE timed_events PARTITION BY id_bucket,
  gap_ms => CAST(${gap_ms} AS BIGINT),
  remember_ms => CAST(${remember_ms} AS BIGINT),
  id_buckets => ${buckets},
  on_time => DESCRIPTOR(rowtime),
  uid => 'ad_lives_${buckets}'
)
