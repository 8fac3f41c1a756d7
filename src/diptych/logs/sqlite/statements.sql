-- Every statement of the SQLite log, by name. In braces: what the code repeats or puts in.
-- A page is one row: each step of a statement costs a turn for Python's interpreter lock.
-- CROSS JOIN keeps the order of the tables, and so the plan.

-- name: head
SELECT head FROM log

-- name: identity
SELECT identity, head, coalesce((SELECT max(position) FROM events), 0) FROM log

-- name: marks
SELECT (SELECT application_id FROM pragma_application_id),
       (SELECT user_version FROM pragma_user_version),
       (SELECT group_concat(name, ', ') FROM (SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 5))

-- name: move_head
UPDATE log SET head = ?

-- name: insert_events
INSERT INTO events (position, id, type, tags, data, metadata) VALUES {rows}

-- name: index_events
-- From the rows just inserted: cheaper than values of its own, and one step. OR IGNORE: an event
-- may bear a tag twice.
INSERT OR IGNORE INTO event_tags (tag, type, position)
SELECT '', type, position FROM events WHERE position > ?
UNION ALL
SELECT t.value, e.type, e.position FROM events AS e CROSS JOIN json_each(e.tags) AS t
WHERE e.position > ?

-- name: insert_keys
INSERT INTO idempotency_keys (key, content, first, last, rejection) VALUES {rows}

-- name: recall
SELECT json_group_array(json_array(kept.key, hex(kept.content), kept.first, kept.last, kept.rejection))
FROM json_each(?) AS wanted
CROSS JOIN idempotency_keys AS kept ON kept.key = wanted.value

-- name: appended_since
SELECT CAST('[' || coalesce(group_concat(printf('[%d,"%s",%s]', position, type, tags)), '') || ']' AS BLOB)
FROM events WHERE position > ?

-- name: types_of_tag
-- The types that occur with a tag, by one seek for each, and the head at that moment.
WITH RECURSIVE found (type) AS (
    SELECT (SELECT min(type) FROM event_tags WHERE tag = ?)
    UNION ALL
    SELECT (SELECT min(type) FROM event_tags WHERE tag = ? AND type > found.type)
    FROM found WHERE found.type IS NOT NULL
)
SELECT (SELECT head FROM log), json_group_array(type) FROM found WHERE type IS NOT NULL

-- name: leg
-- The positions of one tag and type, in the index's own order: so legs are merged, never sorted.
SELECT t.position FROM event_tags AS t
WHERE t.tag = ? AND t.type = ? AND t.position > ? AND t.position <= ? {also}

-- name: leg_also
AND EXISTS (SELECT 1 FROM event_tags AS o WHERE o.tag = ? AND o.type = t.type AND o.position = t.position)

-- name: first_matches
-- The first event of each of many ranges, for the conditions that are too old to be remembered.
WITH leg (number, tag, type, after) AS (VALUES {rows})
SELECT json_group_array(json_array(number, position))
FROM (
    SELECT leg.number, (
        SELECT min(t.position) FROM event_tags AS t
        WHERE t.tag = leg.tag AND t.type = leg.type AND t.position > leg.after AND t.position <= ?
    ) AS position
    FROM leg
) WHERE position IS NOT NULL

-- name: match_legs
SELECT group_concat(position) FROM ({legs} ORDER BY position LIMIT ?)

-- name: match_any
SELECT group_concat(position)
FROM (SELECT position FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?)

-- name: read_legs
SELECT (SELECT head FROM log),
       CAST('[' || coalesce(group_concat({event}), '') || ']' AS BLOB)
FROM ({legs} ORDER BY position LIMIT ?) AS p
CROSS JOIN events AS e ON e.position = p.position

-- name: read_legs_apart
SELECT {event} FROM ({legs} ORDER BY position LIMIT ?) AS p CROSS JOIN events AS e ON e.position = p.position

-- name: read_all
-- Positions have no gaps, so a range of positions is a limit too.
SELECT (SELECT head FROM log),
       CAST('[' || coalesce(group_concat({event}), '') || ']' AS BLOB)
FROM events AS e WHERE e.position > ? AND e.position <= ?

-- name: read_all_apart
-- A damaged event spoils the JSON of its page: then each is a row.
SELECT {event} FROM events AS e WHERE e.position > ? AND e.position <= ?

-- name: read_points
-- Many small reads at once: each leg asks for the events of one tag and type (and a LIMIT cannot
-- refer to a leg).
WITH leg (request, tag, type, after, until) AS (VALUES {rows})
SELECT (SELECT head FROM log),
       CAST('[' || coalesce(group_concat('[' || leg.request || ',[' || (
           SELECT group_concat({event})
           FROM (
               SELECT t.position FROM event_tags AS t
               WHERE t.tag = leg.tag AND t.type = leg.type
                 AND t.position > leg.after AND t.position <= leg.until
               ORDER BY t.position LIMIT ?
           ) AS p
           CROSS JOIN events AS e ON e.position = p.position
       ) || ']]'), '') || ']' AS BLOB)
FROM leg

-- name: event
printf('[%d,"%s","%s",%s,%s,%s]', e.position, e.id, e.type, e.tags, e.data, e.metadata)

-- name: event_apart
e.position, e.id, e.type, e.tags, CAST(e.data AS BLOB), CAST(e.metadata AS BLOB)
