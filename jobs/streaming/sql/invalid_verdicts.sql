-- One verdict per event, the first: an event that several rules speak of is taken off once.
SELECT *
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY processed_at ASC) AS verdict
  FROM (
    SELECT *, PROCTIME() AS processed_at
    FROM (
      SELECT * FROM invalid_by_list
      UNION ALL
      SELECT * FROM invalid_by_rate
      UNION ALL
      SELECT * FROM invalid_by_pattern
    )
  )
)
WHERE verdict = 1
