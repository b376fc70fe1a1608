ALTER TABLE api_token DROP COLUMN rate;
ALTER TABLE api_token DROP COLUMN names;
PRAGMA user_version = 7;
