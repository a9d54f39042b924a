-- Events that keep the rules, with what ad_lives asks of them: is it about showing the ad, and how far did it play?
SELECT
  ${columns},
  ${late_raw} AS late_raw,
  CASE WHEN CARDINALITY(quality_reasons) > 0 THEN ARRAY_JOIN(quality_reasons, ',') ELSE '' END AS reasons,
  event_type NOT IN (${not_of_the_ad}) AS of_the_ad,
  CASE WHEN event_type NOT IN (${not_of_the_ad}) THEN record_id ELSE DECODE(event_id, 'ISO-8859-1') END AS life_id,
  CASE event_type ${quartiles} ELSE -1 END AS quartile,
  rowtime
FROM judged_events
WHERE reject_reason IS NULL ${only}
