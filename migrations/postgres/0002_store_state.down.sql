BEGIN;

DROP TABLE store_state;
ALTER TABLE head DROP COLUMN closed_at;
DELETE FROM schema_step WHERE version = 2;

COMMIT;
