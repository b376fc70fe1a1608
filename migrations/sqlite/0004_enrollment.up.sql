-- Enrollment of devices: points, one-time challenges, what was asked and answered, registration authorities.
PRAGMA user_version = 4;

-- What is sealed under the key encryption key beside the issuers' private keys: RA keys, static challenges, requests
-- that wait.
CREATE TABLE sealed_secret (
    name   TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

CREATE TABLE ra_certificate (
    issuer_id   INTEGER NOT NULL REFERENCES issuer (id),
    number      INTEGER NOT NULL,
    key_id      TEXT NOT NULL,
    fingerprint BLOB NOT NULL UNIQUE,
    der         BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (issuer_id, number)
) STRICT;

-- Whether a certificate was renewed already.
CREATE INDEX certificate_replaces ON certificate (replaces) WHERE replaces IS NOT NULL;

-- config is kept octet by octet as the administrator wrote it, as in profile.
CREATE TABLE enrollment_point (
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    config     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;

CREATE TABLE challenge (
    id         TEXT PRIMARY KEY,
    hash       BLOB NOT NULL, -- SHA-256 of the secret part, which has more than 128 random bits
    point      TEXT NOT NULL,
    profile    TEXT NOT NULL, -- empty: the point's
    subject    TEXT NOT NULL, -- empty: any that the profile allows
    sans       TEXT NOT NULL, -- JSON
    device     TEXT NOT NULL,
    note       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER, -- NULL: not used
    used_by    BLOB,    -- the certificate; NULL: not used, or the request waits
    revoked_at INTEGER, -- NULL: not revoked
    failures   INTEGER NOT NULL
) STRICT;

CREATE INDEX challenge_created ON challenge (created_at, id);
CREATE INDEX challenge_device ON challenge (device) WHERE device <> '';

-- One row for each key that asks under a transactionID. Rows that were answered at once are forgotten when no retry
-- is to be expected any more.
CREATE TABLE enrollment (
    point          TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    spki_hash      BLOB NOT NULL,
    version        INTEGER NOT NULL,
    id             TEXT NOT NULL, -- of requests that wait or have waited; empty for others
    state          INTEGER NOT NULL, -- 1: issued, 2: pending, 3: denied
    csr_hash       BLOB NOT NULL,
    signer_hash    BLOB NOT NULL,
    challenge      TEXT NOT NULL, -- empty: none
    issued         BLOB,    -- fingerprint; NULL: none
    replaces       BLOB,    -- fingerprint; NULL: none
    subject        TEXT NOT NULL,
    sans           TEXT NOT NULL, -- JSON
    profile        TEXT NOT NULL,
    device         TEXT NOT NULL,
    source         TEXT NOT NULL,
    reason         TEXT NOT NULL,
    decided_by     TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    PRIMARY KEY (point, transaction_id, spki_hash)
) STRICT;

CREATE UNIQUE INDEX enrollment_id ON enrollment (id) WHERE id <> '';
CREATE INDEX enrollment_created ON enrollment (created_at, id) WHERE id <> '';
CREATE INDEX enrollment_expires ON enrollment (expires_at);
