-- Every event with the reason that it is refused for, or null. The reasons are those of schemas/errors.py.
-- Only a conversion may be of no known ad: attribution finds it.
SELECT
  *,
  CASE
    WHEN record_id = '' OR event_type = '' THEN 'missing_field'
    WHEN (campaign_id = '' OR creative_id = '') AND event_type <> 'conversion' THEN 'missing_field'
    WHEN event_time_ms <= 0 OR received_time_ms - event_time_ms > ${oldest_ms} THEN 'absurd_time'
    WHEN event_time_ms > received_time_ms OR cost_micros < 0 OR `ordinal` < 0 THEN 'bad_value'
  END AS reject_reason
FROM ${source}
