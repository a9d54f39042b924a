-- The first copy of each event, by the order in which copies came.
SELECT
  ${columns},
  `event`.`late_raw` AS late_raw,
  `event`.`reasons` AS reasons,
  rowtime
FROM lives
WHERE `event` IS NOT NULL
