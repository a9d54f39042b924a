-- Absolute counters of each entity, a row per bucket that an event has changed.
SELECT *
FROM counter_buckets(
  input => TABLE ${updates} PARTITION BY entity_key,
  kept_s => ${kept_s},
  uid => '${job}'
)
