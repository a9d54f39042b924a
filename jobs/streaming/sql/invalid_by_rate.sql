-- Rates count by the clock that the sender can't choose: a device's events when they were received, those that a server
-- logged when they happened. Neither is the publisher's, whose own delays would look like floods.
WITH billed AS (
  SELECT
    ${columns},
    published_time_ms,
    COALESCE(user_pseudonym, household_pseudonym) AS visitor,
    CASE source WHEN 'video_player' THEN received_time_ms ELSE event_time_ms END AS clock_ms,
    CASE WHEN reasons <> '' AND REGEXP(reasons, '(^|,)ivt_data_center(,|$$)') THEN 1 ELSE 0 END AS from_data_center,
    PROCTIME() AS processed_at
  FROM deduplicated_events
  WHERE event_type IN ('impression', 'click')
),
clicks AS (
  SELECT *, COUNT(*) OVER (
    PARTITION BY visitor, clock_ms / ${flood_window_ms} ORDER BY processed_at
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  ) AS so_far
  FROM billed
  WHERE event_type = 'click' AND visitor IS NOT NULL
),
addresses AS (
  SELECT *, COUNT(DISTINCT user_pseudonym) OVER hour_of_address AS users,
    SUM(from_data_center) OVER hour_of_address AS data_center_events
  FROM billed
  WHERE household_pseudonym IS NOT NULL
  WINDOW hour_of_address AS (
    PARTITION BY household_pseudonym, clock_ms / 3600000 ORDER BY processed_at
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
  )
)
SELECT
  ${columns},
  'general' AS traffic_class,
  'click_flood' AS rule,
  CONCAT('click ', CAST(so_far AS STRING), ' of a user in ${flood_window_s} s') AS detail,
  published_time_ms AS verdict_time_ms
FROM clicks
WHERE from_data_center = 0 AND so_far > ${flood_clicks}
UNION ALL
SELECT
  ${columns},
  'general',
  CASE WHEN users > ${address_users} THEN 'many_users_one_address' ELSE 'data_center_repeat' END,
  CASE
    WHEN users > ${address_users} THEN CONCAT(CAST(users AS STRING), ' users behind one address in an hour')
    ELSE CONCAT(CAST(data_center_events AS STRING), ' events of the address from data centres in an hour')
  END,
  published_time_ms
FROM addresses
WHERE from_data_center = 0 AND (users > ${address_users} OR data_center_events > ${data_center_events})
