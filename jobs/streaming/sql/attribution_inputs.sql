-- Conversions, and the clicks and impressions that they may be credited to, each under every key that it can be found by:
-- its ad and its user, within an advertiser. Marked traffic is no touch, nor is what the advertiser's look-back excludes.
WITH moments AS (
  SELECT
    ${record_id} AS record_id, ${user_pseudonym} AS user_pseudonym, ${advertiser_id} AS advertiser_id,
    ROW(
      CASE event_type WHEN 'conversion' THEN 0 WHEN 'impression' THEN 1 ELSE 2 END,
      CASE WHEN ${user_pseudonym} IS NULL THEN 1 ELSE 2 END,
      event_id, event_time_ms, published_time_ms, ${record_id}, ${user_pseudonym},
      COALESCE(${order_id}, ''),
      COALESCE(conversion_value_micros, 0),
      ${advertiser_id},
      ${dimensions}
    ) AS moment
  FROM deduplicated_events
  WHERE event_type = 'conversion' OR (
    event_type IN ('impression', 'click') AND NOT marked_invalid
    AND touch_lookback_s('${lookbacks}', ${advertiser_id}, event_type) > 0
  )
),
under_keys AS (
  SELECT CONCAT_WS('|', 'ad', record_id, advertiser_id) AS match_key, moment FROM moments
  UNION ALL
  SELECT CONCAT_WS('|', 'user', user_pseudonym, advertiser_id) AS match_key, moment FROM moments
  WHERE user_pseudonym IS NOT NULL
)
SELECT text_bucket(match_key, ${buckets}) AS match_bucket, match_key, moment FROM under_keys
