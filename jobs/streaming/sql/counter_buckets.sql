-- Absolute counters of each entity, a row per bucket that an event has changed.
SELECT *
FROM counter_buckets(
  input => TABLE ${updates} PARTITION BY entity_key,
  bucket_kept_s => ${bucket_kept_s},
  lifetime_kept_s => ${lifetime_kept_s},
  uid => '${job}'
)
