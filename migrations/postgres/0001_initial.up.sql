-- The first schema. Times are UTC microseconds, serial numbers, hashes and DER raw bytes, enumerations the numbers of
-- the RFC or of package pki. Nothing here reads a clock but the leases.
BEGIN;

-- Trusted since Postgres 13: the owner of the database may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Which migrations took effect. Each writes its row in its own transaction.
CREATE TABLE schema_step (
    version BIGINT PRIMARY KEY
);

-- The end of the chain, one row. Every transaction that changes something updates it, as its last act: the row's lock
-- makes the order of commits the order of the numbers. Room on the page keeps the updates in place (HOT).
CREATE TABLE head (
    strand        SMALLINT PRIMARY KEY,
    change        BIGINT NOT NULL,
    config_change BIGINT NOT NULL,
    status_change BIGINT NOT NULL,
    crl_change    BIGINT NOT NULL,
    audit_seq     BIGINT NOT NULL,
    hash          BYTEA NOT NULL,
    newest_time   TIMESTAMPTZ
) WITH (fillfactor = 10);

INSERT INTO head (strand, change, config_change, status_change, crl_change, audit_seq, hash, newest_time)
VALUES (0, 0, 0, 0, 0, 0, decode(repeat('00', 32), 'hex'), NULL);

-- One row per transaction. The nonce is drawn by the client, which finds its transaction by it when the connection broke
-- during COMMIT.
CREATE TABLE audit_batch (
    change    BIGINT PRIMARY KEY,
    first_seq BIGINT NOT NULL,
    count     INTEGER NOT NULL,
    root      BYTEA NOT NULL,
    hash      BYTEA NOT NULL,
    nonce     BYTEA NOT NULL
);

-- The record is what is sealed; the columns after it are copies for filters.
CREATE TABLE audit_record (
    seq    BIGINT PRIMARY KEY,
    change BIGINT NOT NULL,
    record BYTEA NOT NULL,
    time   TIMESTAMPTZ NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL
);

-- Targets are mostly fingerprints: random, and 75 characters long. A hash index holds 4 octets of each.
CREATE INDEX audit_record_target ON audit_record USING hash (target);
CREATE INDEX audit_record_time ON audit_record USING brin (time) WITH (pages_per_range = 32);

CREATE TABLE issuer (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    root    BOOLEAN NOT NULL,
    created TIMESTAMPTZ NOT NULL
);

CREATE TABLE issuer_key (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer_id BIGINT NOT NULL REFERENCES issuer (id),
    key_id    TEXT NOT NULL UNIQUE,
    current   BOOLEAN NOT NULL,
    created   TIMESTAMPTZ NOT NULL
);

CREATE TABLE issuer_certificate (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer_key_id BIGINT NOT NULL REFERENCES issuer_key (id),
    parent_key_id BIGINT REFERENCES issuer_key (id), -- NULL: signed by a stranger
    fingerprint   BYTEA NOT NULL UNIQUE,
    current       BOOLEAN NOT NULL,
    der           BYTEA NOT NULL
);

-- Private keys, each sealed under the key encryption key (KEK), which is never here.
CREATE TABLE sealed_key (
    issuer_key_id BIGINT PRIMARY KEY REFERENCES issuer_key (id),
    sealed        BYTEA NOT NULL
);

-- How the KEK is made; one row once the store is set up.
CREATE TABLE kek (
    id   SMALLINT PRIMARY KEY CHECK (id = 0),
    info BYTEA NOT NULL
);

-- Public keys that are refused. own: a key of ours; else one that was reported compromised.
CREATE TABLE blocked_key (
    spki_hash BYTEA PRIMARY KEY,
    own       BOOLEAN NOT NULL
);

-- config is kept octet by octet as the administrator wrote it; JSONB would not.
CREATE TABLE profile (
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    config     BYTEA NOT NULL,
    builtin    BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE api_token (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BYTEA NOT NULL,
    role       SMALLINT NOT NULL,
    issuers    TEXT[] NOT NULL,
    profiles   TEXT[] NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    created_by TEXT NOT NULL,
    expires_at TIMESTAMPTZ, -- NULL: never
    revoked_at TIMESTAMPTZ  -- NULL: not revoked
);

CREATE UNIQUE INDEX api_token_name_in_force ON api_token (name) WHERE revoked_at IS NULL;

-- Issued certificates. Rows are only ever added: what becomes of a certificate stands in revocation, so that a change of
-- status does not rewrite a row of more than a kilobyte and its eight index entries. The bucket is a pure function of the
-- serial number (its month of expiry), hence unique keys that carry it are unique over all partitions.
CREATE TABLE certificate (
    issuer_id       BIGINT NOT NULL,
    issuer_key_id   BIGINT NOT NULL,
    not_before      TIMESTAMPTZ NOT NULL,
    not_after       TIMESTAMPTZ NOT NULL,
    issued_at       TIMESTAMPTZ NOT NULL,
    bucket          INTEGER NOT NULL,
    profile_version INTEGER NOT NULL,
    crl_shard       INTEGER NOT NULL,
    serial          BYTEA NOT NULL,
    fingerprint     BYTEA NOT NULL,
    spki_hash       BYTEA NOT NULL,
    replaces        BYTEA, -- NULL: none
    subject         TEXT NOT NULL,
    sans            TEXT[] NOT NULL,
    profile         TEXT NOT NULL,
    requester       TEXT NOT NULL,
    protocol        TEXT NOT NULL,
    device          TEXT NOT NULL,
    source          TEXT NOT NULL,
    transaction_id  TEXT NOT NULL,
    crl_scope       TEXT NOT NULL,
    search_text     TEXT NOT NULL, -- subject and SANs in lower case
    der             BYTEA,
    -- The key is included so that "did this issuer key issue it" reads the index alone.
    PRIMARY KEY (issuer_id, bucket, serial) INCLUDE (issuer_key_id),
    CONSTRAINT certificate_fingerprint UNIQUE (fingerprint, bucket)
) PARTITION BY RANGE (bucket);

-- DER does not compress; do not try.
ALTER TABLE certificate ALTER COLUMN der SET STORAGE EXTERNAL;

CREATE INDEX certificate_issued ON certificate (issued_at, serial, issuer_id);
CREATE INDEX certificate_not_after ON certificate (not_after);
CREATE INDEX certificate_spki ON certificate USING hash (spki_hash);
CREATE INDEX certificate_device ON certificate (device) WHERE device <> '';
CREATE INDEX certificate_search ON certificate USING gin (search_text gin_trgm_ops);

CREATE TABLE certificate_imported PARTITION OF certificate FOR VALUES FROM (0) TO (1);
CREATE TABLE certificate_2026 PARTITION OF certificate FOR VALUES FROM (312) TO (324);
CREATE TABLE certificate_2027 PARTITION OF certificate FOR VALUES FROM (324) TO (336);
CREATE TABLE certificate_2028 PARTITION OF certificate FOR VALUES FROM (336) TO (348);
CREATE TABLE certificate_2029 PARTITION OF certificate FOR VALUES FROM (348) TO (360);
CREATE TABLE certificate_2030 PARTITION OF certificate FOR VALUES FROM (360) TO (372);
CREATE TABLE certificate_2031 PARTITION OF certificate FOR VALUES FROM (372) TO (384);
CREATE TABLE certificate_2032 PARTITION OF certificate FOR VALUES FROM (384) TO (396);
CREATE TABLE certificate_2033 PARTITION OF certificate FOR VALUES FROM (396) TO (408);
CREATE TABLE certificate_2034 PARTITION OF certificate FOR VALUES FROM (408) TO (420);
CREATE TABLE certificate_2035 PARTITION OF certificate FOR VALUES FROM (420) TO (432);
CREATE TABLE certificate_2036 PARTITION OF certificate FOR VALUES FROM (432) TO (444);
CREATE TABLE certificate_2037 PARTITION OF certificate FOR VALUES FROM (444) TO (456);
CREATE TABLE certificate_2038 PARTITION OF certificate FOR VALUES FROM (456) TO (468);
CREATE TABLE certificate_2039 PARTITION OF certificate FOR VALUES FROM (468) TO (480);
CREATE TABLE certificate_2040 PARTITION OF certificate FOR VALUES FROM (480) TO (492);
CREATE TABLE certificate_2041 PARTITION OF certificate FOR VALUES FROM (492) TO (504);
CREATE TABLE certificate_2042 PARTITION OF certificate FOR VALUES FROM (504) TO (516);
CREATE TABLE certificate_2043 PARTITION OF certificate FOR VALUES FROM (516) TO (528);
CREATE TABLE certificate_2044 PARTITION OF certificate FOR VALUES FROM (528) TO (540);
CREATE TABLE certificate_2045 PARTITION OF certificate FOR VALUES FROM (540) TO (552);
CREATE TABLE certificate_never PARTITION OF certificate FOR VALUES FROM (65535) TO (65536);
CREATE TABLE certificate_default PARTITION OF certificate DEFAULT;

-- The certificates that are not good. A released one leaves; its history stands in status_event.
CREATE TABLE revocation (
    issuer_key_id   BIGINT NOT NULL,
    serial          BYTEA NOT NULL,
    issuer_id       BIGINT NOT NULL,
    bucket          INTEGER NOT NULL,
    status          SMALLINT NOT NULL,
    reason          SMALLINT NOT NULL,
    revoked_at      TIMESTAMPTZ NOT NULL,
    invalidity_date TIMESTAMPTZ, -- NULL: unknown
    not_after       TIMESTAMPTZ NOT NULL,
    change          BIGINT NOT NULL, -- the newest that touched it
    first_crl_at    TIMESTAMPTZ,     -- NULL: on no CRL yet
    first_ocsp_at   TIMESTAMPTZ,     -- NULL: in no OCSP answer yet
    PRIMARY KEY (issuer_key_id, serial)
) WITH (fillfactor = 80);

-- Every change of a status, in the order of commits.
CREATE TABLE status_event (
    change          BIGINT NOT NULL,
    ord             INTEGER NOT NULL,
    issuer_key_id   BIGINT NOT NULL,
    serial          BYTEA NOT NULL,
    status          SMALLINT NOT NULL, -- 0: released
    reason          SMALLINT NOT NULL,
    revoked_at      TIMESTAMPTZ,
    invalidity_date TIMESTAMPTZ,
    not_after       TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (change, ord)
);

CREATE TABLE crl (
    issuer_key_id BIGINT NOT NULL REFERENCES issuer_key (id),
    scope         TEXT NOT NULL,
    number        BIGINT NOT NULL,
    shard         INTEGER NOT NULL,
    this_update   TIMESTAMPTZ NOT NULL,
    next_update   TIMESTAMPTZ NOT NULL,
    scheduled     BOOLEAN NOT NULL,
    change        BIGINT NOT NULL,
    entries       BIGINT NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL,
    der           BYTEA NOT NULL,
    PRIMARY KEY (issuer_key_id, scope, number)
);

ALTER TABLE crl ALTER COLUMN der SET STORAGE EXTERNAL;

CREATE TABLE lease (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL, -- empty: given back
    token      BIGINT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

INSERT INTO schema_step (version) VALUES (1);

COMMIT;
