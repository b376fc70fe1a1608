-- Campaigns that revoke many certificates, and more about keys that are refused.
BEGIN;

-- Who reported a key compromised, and when. A key of ours stays ours when it is reported. The release before writes own
-- alone: a key that is not ours is a compromised one whatever this says.
ALTER TABLE blocked_key
    ADD COLUMN compromised BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN blocked_at TIMESTAMPTZ, -- NULL: not known
    ADD COLUMN blocked_by TEXT NOT NULL DEFAULT '',
    ADD COLUMN campaign TEXT NOT NULL DEFAULT '';

UPDATE blocked_key SET compromised = true WHERE NOT own;

CREATE TABLE campaign (
    id              TEXT PRIMARY KEY,
    state           SMALLINT NOT NULL, -- 1: running, 2: paused, 3: done, 4: cancelled
    selection       TEXT NOT NULL,     -- JSON: the filter of certificates
    query           TEXT NOT NULL,     -- JSON: the same as people asked for it
    spki_hash       BYTEA,             -- the key that was blocked; NULL: none
    reason          SMALLINT NOT NULL,
    invalidity_date TIMESTAMPTZ,       -- NULL: unknown
    change_reasons  BOOLEAN NOT NULL,
    expected        BIGINT NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    created_by      TEXT NOT NULL,
    role            TEXT NOT NULL,
    source          TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    revoked         BIGINT NOT NULL,
    skipped         BIGINT NOT NULL,
    step            BIGINT NOT NULL,
    at_issued       TIMESTAMPTZ,       -- the last certificate that was looked at; NULL: none
    at_serial       BYTEA NOT NULL,
    at_issuer       BIGINT NOT NULL,
    look_back       BOOLEAN NOT NULL,
    changed_at      TIMESTAMPTZ NOT NULL,
    ended_at        TIMESTAMPTZ        -- NULL: it has not ended
) WITH (fillfactor = 50);

CREATE INDEX campaign_open ON campaign (state) WHERE state IN (1, 2);

INSERT INTO schema_step (version) VALUES (5);

COMMIT;
