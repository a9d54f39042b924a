SELECT
  '${source_topic}' AS source_topic,
  kafka_partition AS `partition`,
  kafka_offset AS `offset`,
  schema_id,
  reject_reason AS reason,
  CONCAT('event of type ', event_type, ' breaks a rule of judged_events.sql') AS detail,
  'event_quality' AS job,
  '${job_version}' AS job_version,
  UNIX_TIMESTAMP() * 1000 AS refused_time_ms,
  CAST(NULL AS STRING) AS origin,
  kafka_key AS `key`,
  `raw`
FROM rejected_events
