-- name: versions
SELECT projection, version, instance, tables, state, parts, since, turn
FROM diptych_versions ORDER BY projection, since

-- name: claim
INSERT OR IGNORE INTO diptych_versions
    (projection, version, instance, tables, state, parts, since, turn)
VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(turn), 0) + 1 FROM diptych_versions))

-- name: turn
UPDATE diptych_versions SET version = ?, tables = ?, state = ?, parts = ?, since = ?, turn = ?
WHERE projection = ? AND version = ? AND instance = ? AND state = ?

-- name: forget
DELETE FROM diptych_versions
WHERE projection = ? AND version = ? AND instance = ? AND state = ?

-- The last turn stays the last: else a later change would pass for one that is known.
-- name: count_on
UPDATE diptych_versions SET turn = ?
WHERE turn = (SELECT max(turn) FROM diptych_versions)

-- name: last_turn
SELECT coalesce(max(turn), 0) FROM diptych_versions

-- name: reached
SELECT coalesce(CAST(min(position) AS INTEGER), -1) FROM diptych_checkpoints WHERE projection = ?

-- name: drop_checkpoints
DELETE FROM diptych_checkpoints WHERE projection = ?

-- name: drop_blocks
DELETE FROM diptych_blocks WHERE projection = ?

-- name: drop_proofs
DELETE FROM diptych_proofs WHERE projection = ?

-- name: drop_parked
DELETE FROM diptych_parked WHERE projection = ?

-- name: drop_pauses
DELETE FROM diptych_pauses WHERE projection = ?
