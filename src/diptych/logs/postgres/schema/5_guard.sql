-- Events are facts: no role, not even their owner, changes or deletes one.
CREATE OR REPLACE FUNCTION {schema}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are never changed or deleted'
        USING ERRCODE = 'insufficient_privilege', HINT = 'append a new event that corrects it';
END $$;
CREATE OR REPLACE TRIGGER events_are_never_changed
    BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.events
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_change();
CREATE OR REPLACE TRIGGER event_tags_are_never_changed
    BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.event_tags
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse_change();
