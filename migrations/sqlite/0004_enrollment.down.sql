DROP INDEX certificate_replaces;
DROP TABLE enrollment;
DROP TABLE challenge;
DROP TABLE enrollment_point;
DROP TABLE ra_certificate;
DROP TABLE sealed_secret;
PRAGMA user_version = 3;
