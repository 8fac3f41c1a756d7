-- tags is a JSON array of strings; data and metadata are JSON, byte for byte as appended.
CREATE TABLE IF NOT EXISTS {schema}.events (
    position bigint PRIMARY KEY,
    id       text COLLATE "C" NOT NULL,
    type     text COLLATE "C" NOT NULL,
    tags     text COLLATE "C" NOT NULL,
    data     bytea NOT NULL,
    metadata bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_type ON {schema}.events (type, position);
