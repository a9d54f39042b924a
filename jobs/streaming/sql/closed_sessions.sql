-- One row per ad when the gap after its last event has passed. MAX over what is the same in all events of an ad.
WITH lives AS (
  SELECT * FROM (
    SELECT
      record_id, event_type, event_time_ms, published_time_ms, cost_micros,
      advertiser_id, campaign_id, line_item_id, creative_id, creative_version, placement_id, publisher_id,
      user_pseudonym, country, device_type, platform, creative_format, deal_type, experiment_cell, pricing, bidder_id, currency, creative_length_s, watch_percent, source,
      CASE event_type ${quartiles} ELSE -1 END AS quartile,
      rowtime
    FROM deduplicated_events
    WHERE event_type NOT IN (${not_of_the_ad})
    UNION ALL
    SELECT
      '', '', 0, 0, 0,
      '', '', '', '', 0, '', '',
      CAST(NULL AS STRING), CAST(NULL AS STRING), CAST(NULL AS STRING), CAST(NULL AS STRING), CAST(NULL AS STRING),
      CAST(NULL AS STRING), '', '', CAST(NULL AS STRING), '', CAST(NULL AS INT), CAST(NULL AS INT), '',
      -1,
      rowtime
    FROM stream_clock
    WHERE tick < 0
  )
),
summed AS (
  SELECT
    record_id,
    MAX(advertiser_id) AS advertiser_id,
    MAX(campaign_id) AS campaign_id,
    MAX(line_item_id) AS line_item_id,
    MAX(creative_id) AS creative_id,
    MAX(creative_version) AS creative_version,
    MAX(placement_id) AS placement_id,
    MAX(publisher_id) AS publisher_id,
    MAX(user_pseudonym) AS user_pseudonym,
    MAX(country) AS country,
    MAX(device_type) AS device_type,
    MAX(platform) AS platform,
    MAX(creative_format) AS creative_format,
    MAX(deal_type) AS deal_type,
    MAX(experiment_cell) AS experiment_cell,
    MAX(pricing) AS pricing,
    MAX(bidder_id) AS bidder_id,
    MAX(currency) AS currency,
    MIN(event_time_ms) AS first_event_time_ms,
    MAX(event_time_ms) AS last_event_time_ms,
    MAX(quartile) AS furthest,
    COUNT(*) FILTER (WHERE event_type = 'impression') AS impressions,
    COUNT(*) FILTER (WHERE event_type = 'click') AS clicks,
    COUNT(*) FILTER (WHERE event_type IN (${engagements})) AS engagements,
    COUNT(*) FILTER (WHERE event_type = 'error') AS errors,
    COUNT(*) FILTER (WHERE event_type = 'viewable') AS viewables,
    COUNT(*) FILTER (WHERE event_type = 'qr_scan') AS qr_scans,
    COUNT(*) FILTER (WHERE event_type = 'pause_ad') AS pause_ads,
    COUNT(*) FILTER (WHERE event_type = 'skip') AS skips,
    COALESCE(MAX(GREATEST(watch_percent, quartile)), 0) AS watched,
    COALESCE(MAX(creative_length_s), 0) AS length_s,
    CAST(COUNT(DISTINCT source) AS INT) AS devices,
    COUNT(*) AS events,
    SUM(cost_micros) AS cost_micros,
    MAX(published_time_ms) AS last_published_ms
  FROM TABLE(SESSION(TABLE lives PARTITION BY record_id, DESCRIPTOR(rowtime), INTERVAL '${gap_s}' SECOND))
  GROUP BY window_start, window_end, record_id
)
SELECT
  *,
  furthest >= 0 AS started,
  CASE WHEN furthest > 0 THEN furthest ELSE 0 END AS furthest_quartile,
  CASE
    WHEN furthest = 100 THEN 'completed'
    WHEN errors > 0 THEN 'errored'
    WHEN furthest >= 0 THEN 'abandoned'
    ELSE 'shown'
  END AS state,
  viewables > 0 AS viewable,
  watched AS watch_percent,
  CAST(watched AS BIGINT) * length_s * 10 AS watch_time_ms,
  1 AS revision,
  last_event_time_ms - first_event_time_ms AS dwell_ms,
  last_published_ms + ${gap_s} * 1000 AS closed_time_ms
FROM summed
