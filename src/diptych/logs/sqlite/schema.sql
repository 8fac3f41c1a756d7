-- The log in a SQLite file. One transaction; run again, it changes nothing.

BEGIN IMMEDIATE;

-- The one row of the log. Positions come from its head: a sequence would leave holes.
CREATE TABLE IF NOT EXISTS log (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT NOT NULL,
    head     INTEGER NOT NULL,
    created  TEXT NOT NULL
);

-- tags is a JSON array of strings; data and metadata are JSON objects, byte for byte as appended.
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY,
    id       TEXT NOT NULL,
    type     TEXT NOT NULL,
    tags     TEXT NOT NULL,
    data     TEXT NOT NULL,
    metadata TEXT NOT NULL
);

-- One row for each tag of an event, and one with the tag '', so that reading by type alone is
-- indexed too.
CREATE TABLE IF NOT EXISTS event_tags (
    tag      TEXT NOT NULL,
    type     TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (tag, type, position)
) WITHOUT ROWID;

-- The first answer to each key. content is a digest of the request; rejection is JSON.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key       TEXT PRIMARY KEY,
    content   BLOB NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    rejection TEXT
) WITHOUT ROWID;

CREATE TRIGGER IF NOT EXISTS events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

CREATE TRIGGER IF NOT EXISTS events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never deleted');
END;

-- The identity is a random UUID (RFC 9562, version 4).
INSERT OR IGNORE INTO log (one, identity, head, created)
SELECT 1,
       substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-4' || substr(h, 14, 3) || '-a'
           || substr(h, 18, 3) || '-' || substr(h, 21, 12),
       0,
       strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
FROM (SELECT lower(hex(randomblob(16))) AS h);

PRAGMA application_id = 1148809332; -- 'Dypt' in ASCII
PRAGMA user_version = 1;

COMMIT;
