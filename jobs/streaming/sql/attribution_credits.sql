-- An ad's own fields are those of the touch; without one, what the conversion says of itself. Money is the conversion's.
SELECT
  conversion_event_id,
  t.conversion.order_id AS order_id,
  CASE WHEN t.touch IS NULL THEN 'unattributed' ELSE 'attributed' END AS outcome,
  sign,
  revision,
  CASE t.touch.kind WHEN 1 THEN 'view' WHEN 2 THEN 'click' END AS touch_type,
  t.touch.event_id AS touch_event_id,
  t.touch.record_id AS touch_record_id,
  t.touch.event_time_ms AS touch_time_ms,
  t.conversion.event_time_ms AS conversion_time_ms,
  lookback_s,
  t.conversion.user_pseudonym AS user_pseudonym,
  t.conversion.value_micros AS value_micros,
  ${dimensions},
  decided_time_ms
FROM attribution_credits(
  input => TABLE attribution_answers PARTITION BY conversion_event_id,
  late_s => CAST(${late_s} AS BIGINT),
  uid => 'attribution_credits'
) AS t
