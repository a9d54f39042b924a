-- The clock's rows never come through; their watermark does, so that time goes on when traffic stops.
UNION ALL
SELECT
  ${no_columns},
  CAST(NULL AS BYTES),
  '',
  FALSE,
  CAST(NULL AS STRING),
  -1,
  rowtime
FROM stream_clock
WHERE tick < 0
