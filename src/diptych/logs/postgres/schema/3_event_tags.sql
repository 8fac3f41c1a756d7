-- One row for each tag of an event: what boundaries are read and conditions checked by.
CREATE TABLE IF NOT EXISTS {schema}.event_tags (
    tag      text COLLATE "C" NOT NULL,
    type     text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tag, type, position)
);
