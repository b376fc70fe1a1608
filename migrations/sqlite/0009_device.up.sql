-- Devices, what is told to other systems about them, and how often requests were refused.
PRAGMA user_version = 9;

-- A device's id is what stands in certificate.device.
CREATE TABLE device (
    id               TEXT PRIMARY KEY,
    version          INTEGER NOT NULL, -- counts what people and status changes write, from 1
    status           INTEGER NOT NULL, -- 1: expected, 2: enrolled, 3: blocked, 4: retired
    group_name       TEXT NOT NULL,
    owner            TEXT NOT NULL,
    labels           TEXT NOT NULL,   -- JSON object of strings, in the order of keys
    subject          TEXT NOT NULL,   -- the only one that its certificates may have; empty: what its point says
    sans             TEXT NOT NULL,   -- JSON; likewise
    note             TEXT NOT NULL,
    reason           TEXT NOT NULL,   -- why it is blocked or retired
    created_at       INTEGER NOT NULL,
    created_by       TEXT NOT NULL,
    changed_at       INTEGER NOT NULL,
    changed_by       TEXT NOT NULL,
    first_seen_at    INTEGER, -- NULL: never
    last_seen_at     INTEGER,
    last_source      TEXT NOT NULL,
    last_point       TEXT NOT NULL,
    protocol         TEXT NOT NULL, -- JSON: what its client can do
    certificate      BLOB,    -- fingerprint of the newest one; NULL: it never had one
    issuer_key_id    INTEGER, -- of the newest certificate, as the two below
    serial           BLOB,
    not_after        INTEGER,
    failures         INTEGER NOT NULL, -- requests that were refused since the newest certificate
    renewal_failures INTEGER NOT NULL, -- those of them that were renewals
    failed_at        INTEGER,
    failure          TEXT NOT NULL,
    returns          INTEGER NOT NULL, -- tries to come back with a certificate that has ended, since the newest
    revoke_reason    INTEGER NOT NULL, -- with revoke_until
    revoke_until     INTEGER, -- its certificates that were issued up to then are to be revoked; NULL: none
    search_text      TEXT NOT NULL -- id, group, owner, labels, subject and SANs in lower case
) STRICT;

CREATE INDEX device_group ON device (group_name, id);
CREATE INDEX device_not_after ON device (not_after) WHERE not_after IS NOT NULL;
CREATE INDEX device_revoke ON device (id) WHERE revoke_until IS NOT NULL;

-- batch: what was made together is found and revoked together.
ALTER TABLE challenge ADD COLUMN batch TEXT NOT NULL DEFAULT '';
CREATE INDEX challenge_batch ON challenge (batch) WHERE batch <> '';

-- overrides: JSON, what a point's webhook has said that the certificate is to hold; empty: nothing.
ALTER TABLE enrollment ADD COLUMN overrides TEXT NOT NULL DEFAULT '';

-- What a point's webhook is still to be told.
CREATE TABLE notification (
    id         TEXT PRIMARY KEY,
    point      TEXT NOT NULL,
    body       BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    next_at    INTEGER NOT NULL, -- not before
    attempts   INTEGER NOT NULL,
    error      TEXT NOT NULL -- of the last attempt
) STRICT;

CREATE INDEX notification_next ON notification (point, next_at);

-- How many requests were refused, by day, point and reason.
CREATE TABLE refusal (
    day    INTEGER NOT NULL, -- since 1970-01-01, in UTC
    point  TEXT NOT NULL,
    kind   TEXT NOT NULL, -- enroll, renew, poll or get
    reason TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (day, point, kind, reason)
) STRICT;
