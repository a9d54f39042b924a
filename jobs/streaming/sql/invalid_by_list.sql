-- What the collector or the publisher knew when the event came: its address is in a listed network of data centres.
SELECT
  ${columns},
  'general' AS traffic_class,
  'data_center' AS rule,
  'the address is in a listed network' AS detail,
  published_time_ms AS verdict_time_ms
FROM deduplicated_events
WHERE from_data_center
