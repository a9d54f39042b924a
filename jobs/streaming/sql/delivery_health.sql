-- A signal is raised in the window that shows it first, and cleared in the first that does not. When all campaigns
-- together have next to no impressions, the platform is silent, and no campaign is blamed for it.
WITH platform AS (
  SELECT
    window_start, window_end,
    SUM(impressions) AS all_impressions,
    SUM(baseline_impressions) AS all_baseline_impressions
  FROM delivery_windows
  GROUP BY window_start, window_end
),
judged AS (
  SELECT
    c.window_time, c.campaign_id, c.advertiser_id, c.window_start_ms,
    c.impressions, c.errors, c.baseline_impressions,
    c.baseline_impressions >= ${min_impressions} AND c.impressions = 0
      AND p.all_impressions * 100 >= p.all_baseline_impressions * ${platform_percent} AS stopped,
    c.baseline_impressions = 0 AND c.impressions > 0 AS resumed,
    c.impressions + c.errors >= ${min_events}
      AND c.errors * 100 > (c.impressions + c.errors) * ${error_percent} AS failing,
    c.baseline_impressions + c.baseline_errors >= ${min_events}
      AND c.baseline_errors * 100 > (c.baseline_impressions + c.baseline_errors) * ${error_percent} AS was_failing
  FROM delivery_windows AS c
  JOIN platform AS p ON c.window_start = p.window_start AND c.window_end = p.window_end
),
turns AS (
  SELECT *, CASE WHEN stopped THEN 'raised' ELSE 'cleared' END AS state
  FROM judged
  WHERE stopped OR resumed
),
deliveries AS (
  SELECT *, LAG(state) OVER (PARTITION BY campaign_id ORDER BY window_time) AS state_before
  FROM turns
)
SELECT
  campaign_id, advertiser_id, 'zero_delivery' AS `signal`, state, window_start_ms, impressions, errors,
  baseline_impressions, CAST(${window_s} AS BIGINT) AS window_s,
  CONCAT(CAST(impressions AS STRING), ' impressions after ', CAST(baseline_impressions AS STRING)) AS detail
FROM deliveries
WHERE state = 'raised' OR state_before = 'raised'
UNION ALL
SELECT
  campaign_id, advertiser_id, 'error_spike', CASE WHEN failing THEN 'raised' ELSE 'cleared' END, window_start_ms,
  impressions, errors, baseline_impressions, CAST(${window_s} AS BIGINT),
  CONCAT(CAST(errors AS STRING), ' errors beside ', CAST(impressions AS STRING), ' impressions')
FROM judged
WHERE failing <> was_failing
