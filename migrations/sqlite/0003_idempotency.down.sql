DROP TABLE idempotency;
PRAGMA user_version = 2;
