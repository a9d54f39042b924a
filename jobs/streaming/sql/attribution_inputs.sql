-- Conversions, and the clicks and impressions that they may be credited to, each under every key that it can be found by:
-- its ad and its user, within an advertiser. Marked traffic is no touch.
WITH rows_of_interest AS (
  SELECT
    CASE event_type WHEN 'conversion' THEN 0 WHEN 'impression' THEN 1 ELSE 2 END AS kind,
    CASE WHEN user_pseudonym IS NULL THEN 1 ELSE 2 END AS match_keys,
    event_id, event_time_ms, published_time_ms, record_id, user_pseudonym,
    COALESCE(order_id, '') AS order_id,
    COALESCE(conversion_value_micros, 0) AS value_micros,
    ${dimensions}
  FROM deduplicated_events
  WHERE event_type = 'conversion' OR (
    event_type IN ('impression', 'click') AND (reasons = '' OR NOT REGEXP(reasons, '(^|,)ivt_'))
  )
)
SELECT CONCAT_WS('|', 'ad', record_id, advertiser_id) AS match_key, * FROM rows_of_interest
UNION ALL
SELECT CONCAT_WS('|', 'user', user_pseudonym, advertiser_id) AS match_key, * FROM rows_of_interest
WHERE user_pseudonym IS NOT NULL
