-- In the conversion's minute and under the touch's ad; a credit that is taken back is a row with the sign turned.
SELECT
  conversion_time_ms - MOD(conversion_time_ms, 60000) AS minute_ms,
  ${dimensions},
  CASE touch_type WHEN 'click' THEN CAST(sign AS BIGINT) ELSE CAST(0 AS BIGINT) END AS click_through_conversions,
  CASE touch_type WHEN 'view' THEN CAST(sign AS BIGINT) ELSE CAST(0 AS BIGINT) END AS view_through_conversions,
  sign * value_micros AS attributed_value_micros
FROM attribution_credits
WHERE outcome = 'attributed'
