-- name: there
SELECT to_regclass('{schema}.diptych_versions') IS NOT NULL

-- name: versions
SELECT projection, version, instance, tables, state, parts, since, turn
FROM {schema}.diptych_versions ORDER BY projection, since

-- One at a time: turns are counted without holes, and whoever is first has it.
-- name: lock
LOCK TABLE {schema}.diptych_versions IN SHARE ROW EXCLUSIVE MODE

-- name: claim
INSERT INTO {schema}.diptych_versions
    (projection, version, instance, tables, state, parts, since, turn)
VALUES ($1, $2, $3, $4, $5, $6, $7,
    (SELECT coalesce(max(turn), 0) + 1 FROM {schema}.diptych_versions))
ON CONFLICT DO NOTHING

-- name: turn
UPDATE {schema}.diptych_versions
SET version = $1, tables = $2, state = $3, parts = $4, since = $5, turn = $6
WHERE projection = $7 AND version = $8 AND instance = $9 AND state = $10

-- name: forget
DELETE FROM {schema}.diptych_versions
WHERE projection = $1 AND version = $2 AND instance = $3 AND state = $4

-- The last turn stays the last: else a later change would pass for one that is known.
-- name: count_on
UPDATE {schema}.diptych_versions SET turn = $1
WHERE turn = (SELECT max(turn) FROM {schema}.diptych_versions)

-- name: last_turn
SELECT coalesce(max(turn), 0) FROM {schema}.diptych_versions

-- name: drop_checkpoints
DELETE FROM {schema}.diptych_checkpoints WHERE projection = $1

-- name: drop_blocks
DELETE FROM {schema}.diptych_blocks WHERE projection = $1

-- name: drop_proofs
DELETE FROM {schema}.diptych_proofs WHERE projection = $1

-- name: drop_parked
DELETE FROM {schema}.diptych_parked WHERE projection = $1

-- name: drop_pauses
DELETE FROM {schema}.diptych_pauses WHERE projection = $1
