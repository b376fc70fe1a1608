-- Campaigns that revoke many certificates, and more about keys that are refused.
PRAGMA user_version = 5;

-- Who reported a key compromised, and when. A key of ours stays ours when it is reported. The release before writes own
-- alone: a key that is not ours is a compromised one whatever this says. A time that is not known is NULL.
ALTER TABLE blocked_key
    ADD COLUMN compromised INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blocked_key
    ADD COLUMN blocked_at INTEGER;
ALTER TABLE blocked_key
    ADD COLUMN blocked_by TEXT NOT NULL DEFAULT '';
ALTER TABLE blocked_key
    ADD COLUMN campaign TEXT NOT NULL DEFAULT '';

UPDATE blocked_key SET compromised = 1 WHERE own = 0;

CREATE TABLE campaign (
    id              TEXT PRIMARY KEY,
    state           INTEGER NOT NULL, -- 1: running, 2: paused, 3: done, 4: cancelled
    selection       TEXT NOT NULL,    -- JSON: the filter of certificates
    query           TEXT NOT NULL,    -- JSON: the same as people asked for it
    spki_hash       BLOB,             -- the key that was blocked; NULL: none
    reason          INTEGER NOT NULL,
    invalidity_date INTEGER,          -- NULL: unknown
    change_reasons  INTEGER NOT NULL,
    expected        INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    created_by      TEXT NOT NULL,
    role            TEXT NOT NULL,
    source          TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    revoked         INTEGER NOT NULL,
    skipped         INTEGER NOT NULL,
    step            INTEGER NOT NULL,
    at_issued       INTEGER,          -- the last certificate that was looked at; NULL: none
    at_serial       BLOB NOT NULL,
    at_issuer       INTEGER NOT NULL,
    look_back       INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL,
    ended_at        INTEGER           -- NULL: it has not ended
) STRICT, WITHOUT ROWID;

CREATE INDEX campaign_open ON campaign (state) WHERE state IN (1, 2);
