BEGIN;

DROP INDEX certificate_replaces;
DROP TABLE enrollment, challenge, enrollment_point, ra_certificate, sealed_secret;
DELETE FROM schema_step WHERE version = 4;

COMMIT;
