BEGIN;

-- Lists that are in parts cannot be kept: the next ones are made at the next start.
DELETE FROM crl WHERE parts IS NOT NULL;
DROP TABLE crl_part;
ALTER TABLE crl
    DROP COLUMN base,
    DROP COLUMN parts;
DELETE FROM schema_step WHERE version = 7;

COMMIT;
