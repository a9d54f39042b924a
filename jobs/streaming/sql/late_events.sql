SELECT *
FROM deduplicated_events
WHERE received_time_ms - event_time_ms > ${lateness_ms}
