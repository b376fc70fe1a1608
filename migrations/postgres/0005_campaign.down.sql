BEGIN;

DROP TABLE campaign;
ALTER TABLE blocked_key
    DROP COLUMN compromised,
    DROP COLUMN blocked_at,
    DROP COLUMN blocked_by,
    DROP COLUMN campaign;
DELETE FROM schema_step WHERE version = 5;

COMMIT;
