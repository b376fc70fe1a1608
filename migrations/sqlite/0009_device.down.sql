DROP TABLE refusal;
DROP TABLE notification;
DROP TABLE device;
ALTER TABLE enrollment DROP COLUMN overrides;
DROP INDEX challenge_batch;
ALTER TABLE challenge DROP COLUMN batch;
PRAGMA user_version = 8;
