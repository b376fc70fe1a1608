PRAGMA user_version = 9;
ALTER TABLE device DROP COLUMN revoke_profile;
