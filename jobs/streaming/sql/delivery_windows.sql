-- Each campaign's window and the one before it. A window of twice the length holds both, so that a campaign without any
-- event in the newer half has a row all the same. Halves are told apart by whether they are an even number of windows
-- from the epoch.
WITH delivered AS (
  SELECT
    ${campaign_id} AS campaign_id, ${advertiser_id} AS advertiser_id, event_type, MOD(published_time_ms / ${window_ms}, 2) = 0 AS even, rowtime
  FROM deduplicated_events
  WHERE event_type IN ('impression', 'error')
),
halves AS (
  SELECT
    window_start, window_end, window_time,
    campaign_id,
    MAX(advertiser_id) AS advertiser_id,
    COUNT(*) FILTER (WHERE event_type = 'impression' AND even) AS even_impressions,
    COUNT(*) FILTER (WHERE event_type = 'impression' AND NOT even) AS odd_impressions,
    COUNT(*) FILTER (WHERE event_type = 'error' AND even) AS even_errors,
    COUNT(*) FILTER (WHERE event_type = 'error' AND NOT even) AS odd_errors
  FROM TABLE(HOP(
    TABLE delivered, DESCRIPTOR(rowtime), INTERVAL '${window_s}' SECOND(5), INTERVAL '${both_s}' SECOND(5)
  ))
  GROUP BY window_start, window_end, window_time, campaign_id
),
dated AS (
  SELECT
    *, CAST(TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', window_start) AS BIGINT) AS start_s
  FROM halves
)
SELECT
  window_start, window_end, window_time,
  campaign_id,
  advertiser_id,
  (start_s + ${window_s}) * 1000 AS window_start_ms,
  CASE WHEN MOD(start_s / ${window_s}, 2) = 0 THEN odd_impressions ELSE even_impressions END AS impressions,
  CASE WHEN MOD(start_s / ${window_s}, 2) = 0 THEN odd_errors ELSE even_errors END AS errors,
  CASE WHEN MOD(start_s / ${window_s}, 2) = 0 THEN even_impressions ELSE odd_impressions END AS baseline_impressions,
  CASE WHEN MOD(start_s / ${window_s}, 2) = 0 THEN even_errors ELSE odd_errors END AS baseline_errors
FROM dated
