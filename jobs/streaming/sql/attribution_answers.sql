SELECT t.conversion.event_id AS conversion_event_id, conversion, touch, lookback_s, `first`, decided_time_ms
FROM attribution_matches(
  input => TABLE attribution_inputs PARTITION BY match_bucket,
  lookbacks => '${lookbacks}',
  touches => ${touches},
  orders => ${orders},
  late_s => CAST(${late_s} AS BIGINT),
  id_buckets => ${buckets},
  uid => 'attribution_matches_${buckets}'
) AS t
