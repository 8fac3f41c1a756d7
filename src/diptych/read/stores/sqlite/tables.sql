-- How far each projection (and slice of it) is, and the proof of what it has applied.
-- digest: 128 bits in hex. time: that of the event at the position.
CREATE TABLE IF NOT EXISTS diptych_checkpoints (
    projection TEXT NOT NULL,
    slice INTEGER NOT NULL,
    log TEXT NOT NULL,
    position INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    count INTEGER NOT NULL,
    digest TEXT NOT NULL,
    time TEXT,
    PRIMARY KEY (projection, slice)
) WITHOUT ROWID;

-- The same proof for each block of 1024 positions, so that verify can tell where a fault lies.
CREATE TABLE IF NOT EXISTS diptych_blocks (
    projection TEXT NOT NULL,
    slice INTEGER NOT NULL,
    block INTEGER NOT NULL,
    count INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (projection, slice, block)
) WITHOUT ROWID;
