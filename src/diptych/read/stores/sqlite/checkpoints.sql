-- name: tables
SELECT name FROM sqlite_master WHERE type = 'table'

-- name: start
INSERT INTO diptych_checkpoints (projection, slice, log, position, event_id, count, digest)
VALUES (?, 0, ?, 0, '', 0, '00000000000000000000000000000000')
ON CONFLICT DO NOTHING

-- name: read
SELECT projection, slice, log, position, event_id, count, digest, time FROM diptych_checkpoints

-- name: read_one
SELECT projection, slice, log, position, event_id, count, digest, time FROM diptych_checkpoints
WHERE projection = ? AND slice = 0

-- name: move
UPDATE diptych_checkpoints SET position = ?, event_id = ?, count = ?, digest = ?, time = ?
WHERE projection = ? AND slice = ? AND log = ? AND position = ? AND count = ? AND digest = ?

-- name: positions
SELECT json_group_object(projection, position)
FROM (SELECT projection, min(position) AS position FROM diptych_checkpoints GROUP BY projection)

-- name: proof
SELECT
    (SELECT json_group_array(json_array(
        projection, slice, log, position, event_id, count, digest, time
    )) FROM diptych_checkpoints WHERE projection = ? AND slice = 0),
    (SELECT json_group_array(json_array(block, count, digest)) FROM diptych_blocks
     WHERE projection = ? AND slice = 0)

-- name: block
SELECT count, digest FROM diptych_blocks WHERE projection = ? AND slice = 0 AND block = ?

-- name: put_block
INSERT INTO diptych_blocks (projection, slice, block, count, digest) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = excluded.count, digest = excluded.digest
