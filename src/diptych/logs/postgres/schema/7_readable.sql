-- Events for people: SELECT * FROM events_readable ORDER BY position DESC LIMIT 10.
-- jsonb cannot hold a NUL character; a text with one is shown as it was written.
CREATE OR REPLACE FUNCTION {schema}.readable(stored bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN convert_from(stored, 'UTF8')::jsonb;
EXCEPTION WHEN untranslatable_character THEN
    RETURN to_jsonb(convert_from(stored, 'UTF8'));
END $$;
CREATE OR REPLACE VIEW {schema}.events_readable AS
SELECT e.position,
       ({schema}.readable(e.metadata) ->> 'time')::timestamptz AS "time",
       e.type,
       e.tags::jsonb AS tags,
       {schema}.readable(e.data) AS data,
       {schema}.readable(e.metadata) AS metadata,
       e.id
FROM {schema}.events AS e;
