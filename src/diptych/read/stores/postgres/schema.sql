-- One at a time, whatever process: CREATE ... IF NOT EXISTS is no defence against a race.
-- name: lock
SELECT pg_advisory_xact_lock($1)

-- name: schema_exists
SELECT to_regnamespace($1) IS NOT NULL

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS {schema}

-- The columns of tables: whether NULLs are refused, whether part of the primary key. A text that
-- does not sort by code points counts as another type.
-- name: columns
SELECT
    r.relname::text,
    a.attname::text,
    format_type(a.atttypid, a.atttypmod)
        || CASE WHEN c.collname <> 'C' THEN ' COLLATE ' || quote_ident(c.collname) ELSE '' END,
    a.attnotnull,
    EXISTS (SELECT FROM pg_index AS i
            WHERE i.indrelid = r.oid AND i.indisprimary AND a.attnum = ANY (i.indkey))
FROM pg_class AS r
JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
WHERE r.relnamespace = to_regnamespace($1) AND r.relname = ANY ($2::text[])

-- name: relations
SELECT relname::text FROM pg_class
WHERE relnamespace = to_regnamespace($1) AND relname = ANY ($2::text[])
