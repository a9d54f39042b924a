-- Byte for byte what was read, fields that this version does not know included.
SELECT ${record_id} AS record_id, late_raw AS `raw`
FROM deduplicated_events
WHERE late_raw IS NOT NULL
