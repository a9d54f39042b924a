-- Rates count by the clock that the sender can't choose: a device's events when they were received, those that a server
-- logged when they happened. Neither is the publisher's, whose own delays would look like floods.
-- Clicks count by their user (or address) and window: kind 0. All that is billed counts by its address and hour: kind 1.
WITH billed AS (
  SELECT
    ${columns},
    published_time_ms,
    CASE ${source} WHEN 'video_player' THEN received_time_ms ELSE event_time_ms END AS clock_ms,
    from_data_center AS marked,
    COALESCE(${user_pseudonym}, ${household_pseudonym}) AS visitor,
    ${household_pseudonym} AS household
  FROM deduplicated_events
  WHERE event_type IN ('impression', 'click')
),
visits AS (
  SELECT
    0 AS kind, visitor, clock_ms / ${flood_window_ms} AS in_window, text_bucket(visitor, ${buckets}) AS id_bucket,
    ${columns}, published_time_ms, marked
  FROM billed
  WHERE event_type = 'click' AND visitor IS NOT NULL
  UNION ALL
  SELECT
    1, household, clock_ms / 3600000, text_bucket(household, ${buckets}),
    ${columns}, published_time_ms, marked
  FROM billed
  WHERE household IS NOT NULL
),
counted AS (
  SELECT *
  FROM counts_so_far(
    input => TABLE visits PARTITION BY id_bucket,
    kept_ms => CAST(${kept_ms} AS BIGINT),
    id_buckets => ${buckets},
    uid => 'counts_so_far_${buckets}'
  )
)
SELECT
  ${counted_columns},
  'general' AS traffic_class,
  CASE
    WHEN `event`.`kind` = 0 THEN 'click_flood'
    WHEN users_so_far > ${address_users} THEN 'many_users_one_address'
    ELSE 'data_center_repeat'
  END AS rule,
  CASE
    WHEN `event`.`kind` = 0 THEN CONCAT('click ', CAST(rows_so_far AS STRING), ' of a user in ${flood_window_s} s')
    WHEN users_so_far > ${address_users} THEN CONCAT(CAST(users_so_far AS STRING), ' users behind one address in an hour')
    ELSE CONCAT(CAST(marked_so_far AS STRING), ' events of the address from data centres in an hour')
  END AS detail,
  `event`.`published_time_ms` AS verdict_time_ms
FROM counted
WHERE NOT `event`.`marked` AND CASE
  WHEN `event`.`kind` = 0 THEN rows_so_far > ${flood_clicks}
  ELSE users_so_far > ${address_users} OR marked_so_far > ${data_center_events}
END
