-- The events that counters count, with all that these are counted by.
SELECT ${columns}
FROM deduplicated_events
WHERE event_type IN (${event_types})
