-- Absolute counters of each entity, a row per bucket that an event has changed.
SELECT *
FROM counter_buckets(
  input => TABLE ${updates} PARTITION BY entity_bucket,
  kept_s => ${kept_s},
  id_buckets => ${buckets},
  uid => '${job}_${buckets}'
)
