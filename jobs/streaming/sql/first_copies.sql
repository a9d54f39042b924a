-- The uid says how many buckets there are: with another number, ids would be looked for where they are not.
SELECT `event`, rowtime
FROM first_copies(
  input => TABLE timed_events PARTITION BY id_bucket,
  remember_ms => CAST(${remember_ms} AS BIGINT),
  on_time => DESCRIPTOR(rowtime),
  uid => 'first_copies_${buckets}'
)
