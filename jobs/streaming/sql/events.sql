-- Events that keep the rules, without pseudonyms of those who opted out, with the key by which copies of an event meet.
SELECT
  ${columns},
  ${late_raw} AS late_raw,
  reasons,
  ${bucket} AS id_bucket,
  rowtime
FROM judged_events
WHERE reject_reason IS NULL ${only}
