-- How far each projection (and slice of it) is, and the proof of what it has applied.
-- digest: 128 bits in hex. time: that of the event at the position.
-- name: diptych_checkpoints
CREATE TABLE {schema}.diptych_checkpoints (
    projection text COLLATE "C" NOT NULL,
    slice bigint NOT NULL,
    log text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    time timestamp with time zone,
    PRIMARY KEY (projection, slice)
) WITH (fillfactor = 50)

-- The same proof for each block of 1024 positions, so that verify can tell where a fault lies.
-- name: diptych_blocks
CREATE TABLE {schema}.diptych_blocks (
    projection text COLLATE "C" NOT NULL,
    slice bigint NOT NULL,
    block bigint NOT NULL,
    count bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    PRIMARY KEY (projection, slice, block)
)
