-- Enrollment of devices: points, one-time challenges, what was asked and answered, registration authorities.
BEGIN;

-- What is sealed under the key encryption key beside the issuers' private keys: RA keys, static challenges, requests
-- that wait.
CREATE TABLE sealed_secret (
    name   TEXT PRIMARY KEY,
    sealed BYTEA NOT NULL
);

CREATE TABLE ra_certificate (
    issuer_id   BIGINT NOT NULL REFERENCES issuer (id),
    number      INTEGER NOT NULL,
    key_id      TEXT NOT NULL,
    fingerprint BYTEA NOT NULL UNIQUE,
    der         BYTEA NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (issuer_id, number)
);

-- Whether a certificate was renewed already.
CREATE INDEX certificate_replaces ON certificate (replaces) WHERE replaces IS NOT NULL;

-- config is kept octet by octet as the administrator wrote it, as in profile.
CREATE TABLE enrollment_point (
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    config     BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE challenge (
    id         TEXT PRIMARY KEY,
    hash       BYTEA NOT NULL, -- SHA-256 of the secret part, which has more than 128 random bits
    point      TEXT NOT NULL,
    profile    TEXT NOT NULL, -- empty: the point's
    subject    TEXT NOT NULL, -- empty: any that the profile allows
    sans       TEXT[] NOT NULL,
    device     TEXT NOT NULL,
    note       TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    created_by TEXT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    used_at    TIMESTAMPTZ, -- NULL: not used
    used_by    BYTEA,       -- the certificate; NULL: not used, or the request waits
    revoked_at TIMESTAMPTZ, -- NULL: not revoked
    failures   INTEGER NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX challenge_created ON challenge (created_at, id);
CREATE INDEX challenge_device ON challenge (device) WHERE device <> '';

-- One row for each key that asks under a transactionID. Rows that were answered at once are forgotten when no retry
-- is to be expected any more.
CREATE TABLE enrollment (
    point          TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    spki_hash      BYTEA NOT NULL,
    version        INTEGER NOT NULL,
    id             TEXT NOT NULL, -- of requests that wait or have waited; empty for others
    state          SMALLINT NOT NULL, -- 1: issued, 2: pending, 3: denied
    csr_hash       BYTEA NOT NULL,
    signer_hash    BYTEA NOT NULL,
    challenge      TEXT NOT NULL, -- empty: none
    issued         BYTEA, -- fingerprint; NULL: none
    replaces       BYTEA, -- fingerprint; NULL: none
    subject        TEXT NOT NULL,
    sans           TEXT[] NOT NULL,
    profile        TEXT NOT NULL,
    device         TEXT NOT NULL,
    source         TEXT NOT NULL,
    reason         TEXT NOT NULL,
    decided_by     TEXT NOT NULL,
    created_at     TIMESTAMPTZ NOT NULL,
    updated_at     TIMESTAMPTZ NOT NULL,
    expires_at     TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (point, transaction_id, spki_hash)
) WITH (fillfactor = 90);

CREATE UNIQUE INDEX enrollment_id ON enrollment (id) WHERE id <> '';
CREATE INDEX enrollment_created ON enrollment (created_at, id) WHERE id <> '';
CREATE INDEX enrollment_expires ON enrollment (expires_at);

INSERT INTO schema_step (version) VALUES (4);

COMMIT;
