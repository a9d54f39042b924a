-- The first copy of each event, by the order in which copies came.
SELECT *, ${window_time} AS window_time
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY processed_at ASC) AS copy
  FROM events
)
WHERE copy = 1
