-- Events that keep the rules, without pseudonyms of those who opted out, with the key by which copies of an event meet,
-- and what the collector and the publisher have marked.
SELECT
  ${columns},
  ${late_raw} AS late_raw,
  reasons <> '' AND REGEXP(reasons, '(^|,)ivt_') AS marked_invalid,
  reasons <> '' AND REGEXP(reasons, '(^|,)ivt_data_center(,|$$)') AS from_data_center,
  ${bucket} AS id_bucket,
  rowtime
FROM judged_events
WHERE reject_reason IS NULL ${only}
