-- Events that can't be true beside another one of their ad (java/Contradictions.java says which). Events that a server sent
-- without their own time are not judged; one from a listed network has its verdict (invalid_by_list.sql).
WITH moments AS (
  SELECT
    ${ids}, ${packed},
    text_bucket(${record_id}, ${buckets}) AS ad_bucket,
    event_id, event_type, event_time_ms, published_time_ms, cost_micros, creative_length_s,
    from_data_center AS listed,
    rowtime
  FROM deduplicated_events
  WHERE event_type IN (${event_types})
    AND (${source} = 'video_player' OR event_time_ms < received_time_ms)
)
SELECT
  ${columns},
  'sophisticated' AS traffic_class,
  rule,
  detail,
  verdict_time_ms
FROM contradictions(
  input => TABLE moments PARTITION BY ad_bucket,
  on_time => DESCRIPTOR(rowtime),
  window_ms => CAST(${window_ms} AS BIGINT),
  tolerance_ms => CAST(${tolerance_ms} AS BIGINT),
  fastest_percent => ${fastest_percent},
  id_buckets => ${buckets},
  uid => 'contradictions_${buckets}'
)
