-- Two events of an ad whose event times can't both be true of a person watching it, in either order of arrival:
-- a click before the impression, a quartile before the impression or sooner after it than the creative's length allows,
-- a quartile before a lower one. Events that a server sent without their own time are not judged.
-- A match ends with the first contradiction of its first event, so each kind of contradiction is looked for on its own:
-- what one finds hides nothing from the others, and the order of arrival changes no verdict on an impression or a click.
WITH moments AS (
  SELECT
    ${columns},
    CASE event_type WHEN 'click' THEN -2 WHEN 'impression' THEN -1 ${quartiles} END AS step,
    CASE event_type ${quartiles} ELSE 0 END * COALESCE(creative_length_s, 0) * ${fastest_percent} / 10 - ${tolerance_ms}
      AS least_ms,
    published_time_ms,
    rowtime
  FROM deduplicated_events
  WHERE event_type IN ('click', 'impression', ${quartile_types})
    AND (source = 'video_player' OR event_time_ms < received_time_ms)
),
-- No UNNEST: the planner can't tell two of them apart, and would make everything below once for each output.
lines AS (
  SELECT *, 'click' AS line FROM moments WHERE step < 0
  UNION ALL
  SELECT *, 'play' AS line FROM moments WHERE step >= -1
  UNION ALL
  SELECT *, 'order' AS line FROM moments WHERE step >= 0
),
pairs AS (
  SELECT *
  FROM lines MATCH_RECOGNIZE (
    PARTITION BY record_id, line
    ORDER BY rowtime
    MEASURES
      ${shared_measures},
      ${own_measures},
      former.step AS former_step, latter.step AS latter_step,
      GREATEST(former.published_time_ms, latter.published_time_ms) AS verdict_time_ms
    ONE ROW PER MATCH
    AFTER MATCH SKIP TO NEXT ROW
    PATTERN (former between_them*? latter) WITHIN INTERVAL '${window_s}' SECOND(5)
    DEFINE latter AS
      (former.step = -2 AND latter.step = -1 AND latter.event_time_ms - former.event_time_ms > ${tolerance_ms})
      OR (former.step = -1 AND latter.step = -2 AND former.event_time_ms - latter.event_time_ms > ${tolerance_ms})
      OR (former.step = -1 AND latter.step > 0 AND latter.event_time_ms - former.event_time_ms < latter.least_ms)
      OR (former.step > 0 AND latter.step = -1 AND former.event_time_ms - latter.event_time_ms < former.least_ms)
      OR (former.line = 'order' AND former.step < latter.step
        AND former.event_time_ms - latter.event_time_ms > ${tolerance_ms})
      OR (former.line = 'order' AND latter.step < former.step
        AND latter.event_time_ms - former.event_time_ms > ${tolerance_ms})
  )
),
judged AS (
  SELECT
    *,
    -- the click of a click and an impression, the impression of an impression and a quartile, the higher quartile of two
    former_step = -2 OR (
      latter_step <> -2 AND (former_step = -1 OR (latter_step <> -1 AND former_step > latter_step))
    ) AS of_former,
    latter_event_time_ms - former_event_time_ms AS apart_ms
  FROM pairs
)
SELECT
  ${chosen_columns},
  'sophisticated' AS traffic_class,
  CASE
    WHEN former_step = -2 OR latter_step = -2 THEN 'click_before_impression'
    WHEN former_step >= 0 AND latter_step >= 0 THEN 'quartiles_out_of_order'
    WHEN CASE WHEN of_former THEN apart_ms ELSE -apart_ms END < -${tolerance_ms} THEN 'quartile_before_impression'
    ELSE 'quartiles_too_fast'
  END AS rule,
  CONCAT(latter_event_type, ' ', CAST(apart_ms AS STRING), ' ms after ', former_event_type) AS detail,
  verdict_time_ms
FROM judged
