-- What operators look at and change. Every change of what followers must know raises revisions.

-- name: keys
SELECT g.projection, g.key, g.slice, g.events, g.skipped, coalesce(g.first, 0), g.oldest,
    coalesce(p.event, ''), coalesce(p.kind, ''), coalesce(p.error, ''), p.since,
    coalesce(p.attempts, 0)
FROM (
    SELECT projection, key, min(slice) AS slice,
        count(DISTINCT position) FILTER (WHERE state = 'queued') AS events,
        count(DISTINCT position) FILTER (WHERE state = 'skipped') AS skipped,
        min(position) FILTER (WHERE state = 'queued') AS first,
        min(time) FILTER (WHERE state = 'queued') AS oldest
    FROM diptych_parked GROUP BY projection, key
) AS g
LEFT JOIN diptych_parked AS p
    ON p.projection = g.projection AND p.key = g.key AND p.position = g.first
    AND p.slice = (
        SELECT min(q.slice) FROM diptych_parked AS q
        WHERE q.projection = g.projection AND q.key = g.key AND q.position = g.first
    )
ORDER BY g.projection, g.key

-- name: parked
SELECT projection, key, position, slice, slices, event_id, event, time, since, kind, error, attempts,
    state, actor, why, decided
FROM diptych_parked WHERE projection = :projection AND (:key IS NULL OR key = :key)
    AND (NOT :queued OR state = 'queued')
ORDER BY position, key, slice LIMIT :limit

-- name: put_parked
INSERT OR REPLACE INTO diptych_parked
    (projection, key, position, slice, slices, event_id, event, time, since, kind, error, attempts,
    state, actor, why, decided)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: unpark
DELETE FROM diptych_parked WHERE projection = ? AND key = ? AND position = ? AND slice = ?

-- name: pauses
SELECT projection, since, actor, why FROM diptych_pauses

-- The first stands.
-- name: pause
INSERT OR IGNORE INTO diptych_pauses (projection, since, actor, why) VALUES (?, ?, ?, ?)

-- name: resume
DELETE FROM diptych_pauses WHERE projection = ?

-- name: raise
UPDATE diptych_checkpoints SET revision = revision + 1 WHERE projection = ?

-- name: revision
SELECT coalesce(max(CAST(revision AS INTEGER)), 0) FROM diptych_checkpoints WHERE projection = ?

-- name: forget_checkpoints
DELETE FROM diptych_checkpoints WHERE projection = ?

-- name: forget_blocks
DELETE FROM diptych_blocks WHERE projection = ? AND block >= ?

-- name: forget_parked
DELETE FROM diptych_parked WHERE projection = ? AND position > ?

-- name: forget_proof
DELETE FROM diptych_proofs WHERE projection = ?
