-- The clock's rows never come through; their watermark does, so that time goes on when traffic stops.
UNION ALL
SELECT
  ${nothing},
  rowtime
FROM stream_clock
WHERE tick < 0
