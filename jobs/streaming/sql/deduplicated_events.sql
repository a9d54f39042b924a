-- The first copy of each event, by the order in which copies came.
SELECT
  ${columns},
  `event`.`late_raw` AS late_raw,
  `event`.`marked_invalid` AS marked_invalid,
  `event`.`from_data_center` AS from_data_center,
  rowtime
FROM lives
WHERE `event` IS NOT NULL
