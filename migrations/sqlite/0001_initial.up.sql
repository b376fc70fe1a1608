-- The first schema. Times are UTC microseconds since 1970 as INTEGER, serial numbers, hashes and DER raw bytes,
-- enumerations the numbers of the RFC or of package pki. Nothing here reads a clock but the leases.

-- Each migration writes its number here, in its own transaction: what took effect can be read after any failure.
PRAGMA user_version = 1;

-- The end of the chain, one row. Every transaction that changes something updates it, as its last act.
CREATE TABLE head (
    strand        INTEGER PRIMARY KEY,
    change        INTEGER NOT NULL,
    config_change INTEGER NOT NULL,
    status_change INTEGER NOT NULL,
    crl_change    INTEGER NOT NULL,
    audit_seq     INTEGER NOT NULL,
    hash          BLOB NOT NULL,
    newest_time   INTEGER -- NULL: no record yet
) STRICT;

INSERT INTO head (strand, change, config_change, status_change, crl_change, audit_seq, hash, newest_time)
VALUES (0, 0, 0, 0, 0, 0, zeroblob(32), NULL);

-- One row per transaction.
CREATE TABLE audit_batch (
    change    INTEGER PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    root      BLOB NOT NULL,
    hash      BLOB NOT NULL
) STRICT;

-- The record is what is sealed; the columns after it are copies for filters.
CREATE TABLE audit_record (
    seq    INTEGER PRIMARY KEY,
    change INTEGER NOT NULL,
    time   INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    record BLOB NOT NULL
) STRICT;

-- Targets are mostly "certificate/" and a fingerprint, of which 64 bits are enough to find it.
CREATE INDEX audit_record_target ON audit_record (substr(target, 1, 28));

CREATE TABLE issuer (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    root    INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE issuer_key (
    id        INTEGER PRIMARY KEY,
    issuer_id INTEGER NOT NULL REFERENCES issuer (id),
    key_id    TEXT NOT NULL UNIQUE,
    current   INTEGER NOT NULL,
    created   INTEGER NOT NULL
) STRICT;

CREATE TABLE issuer_certificate (
    id            INTEGER PRIMARY KEY,
    issuer_key_id INTEGER NOT NULL REFERENCES issuer_key (id),
    parent_key_id INTEGER REFERENCES issuer_key (id), -- NULL: signed by a stranger
    fingerprint   BLOB NOT NULL UNIQUE,
    current       INTEGER NOT NULL,
    der           BLOB NOT NULL
) STRICT;

-- Private keys, each sealed under the key encryption key (KEK), which is never here.
CREATE TABLE sealed_key (
    issuer_key_id INTEGER PRIMARY KEY REFERENCES issuer_key (id),
    sealed        BLOB NOT NULL
) STRICT;

-- How the KEK is made; one row once the store is set up.
CREATE TABLE kek (
    id   INTEGER PRIMARY KEY CHECK (id = 0),
    info BLOB NOT NULL
) STRICT;

-- Public keys that are refused. own: a key of ours; else one that was reported compromised.
CREATE TABLE blocked_key (
    spki_hash BLOB PRIMARY KEY,
    own       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- config is kept octet by octet as the administrator wrote it.
CREATE TABLE profile (
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    config     BLOB NOT NULL,
    builtin    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

-- issuers and profiles are JSON arrays of strings.
CREATE TABLE api_token (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL,
    role       INTEGER NOT NULL,
    issuers    TEXT NOT NULL,
    profiles   TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER, -- NULL: never
    revoked_at INTEGER  -- NULL: not revoked
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX api_token_name_in_force ON api_token (name) WHERE revoked_at IS NULL;

-- Issued certificates. Rows are only ever added: what becomes of a certificate stands in revocation. The id counts
-- upwards, so that rows are appended, and the text index names rows by it. The DER stands beside, in its own table, so
-- that a list reads a third of the pages. Indexes over hashes hold 8 octets of each: random keys dirty a page per row,
-- and a small index has few pages.
CREATE TABLE certificate (
    id              INTEGER PRIMARY KEY,
    issuer_id       INTEGER NOT NULL,
    issuer_key_id   INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    not_after       INTEGER NOT NULL,
    issued_at       INTEGER NOT NULL,
    bucket          INTEGER NOT NULL, -- a pure function of the serial number
    profile_version INTEGER NOT NULL,
    crl_shard       INTEGER NOT NULL,
    serial          BLOB NOT NULL,
    fingerprint     BLOB NOT NULL,
    spki_hash       BLOB NOT NULL,
    replaces        BLOB, -- NULL: none
    subject         TEXT NOT NULL,
    sans            TEXT NOT NULL, -- JSON array of strings
    profile         TEXT NOT NULL,
    requester       TEXT NOT NULL,
    protocol        TEXT NOT NULL,
    device          TEXT NOT NULL,
    source          TEXT NOT NULL,
    transaction_id  TEXT NOT NULL,
    crl_scope       TEXT NOT NULL,
    search_text     TEXT NOT NULL, -- subject and SANs in lower case
    UNIQUE (issuer_id, bucket, serial)
) STRICT;

CREATE UNIQUE INDEX certificate_fingerprint ON certificate (fingerprint);
CREATE INDEX certificate_issued ON certificate (issued_at, serial, issuer_id);
CREATE INDEX certificate_not_after ON certificate (not_after);
CREATE INDEX certificate_spki ON certificate (substr(spki_hash, 1, 8));
CREATE INDEX certificate_device ON certificate (device) WHERE device <> '';

-- No row for a certificate whose DER is not known.
CREATE TABLE certificate_der (
    id  INTEGER PRIMARY KEY,
    der BLOB NOT NULL
) STRICT;

-- The trigrams of search_text, without positions and without the text: it answers which rows may match, and the row
-- itself says whether it does. It is filled in groups, some time after the certificates; search_progress names the newest
-- row that is in it, and a search reads the few after that one by one.
CREATE VIRTUAL TABLE certificate_search USING fts5 (
    search_text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
);

CREATE TABLE search_progress (
    strand         INTEGER PRIMARY KEY,
    certificate_id INTEGER NOT NULL
) STRICT;

INSERT INTO search_progress (strand, certificate_id) VALUES (0, 0);

-- The certificates that are not good. A released one leaves; its history stands in status_event.
CREATE TABLE revocation (
    issuer_key_id   INTEGER NOT NULL,
    serial          BLOB NOT NULL,
    issuer_id       INTEGER NOT NULL,
    bucket          INTEGER NOT NULL,
    status          INTEGER NOT NULL,
    reason          INTEGER NOT NULL,
    revoked_at      INTEGER NOT NULL,
    invalidity_date INTEGER, -- NULL: unknown
    not_after       INTEGER NOT NULL,
    change          INTEGER NOT NULL, -- the newest that touched it
    first_crl_at    INTEGER,          -- NULL: on no CRL yet
    first_ocsp_at   INTEGER,          -- NULL: in no OCSP answer yet
    PRIMARY KEY (issuer_key_id, serial)
) STRICT, WITHOUT ROWID;

-- Every change of a status, in the order of commits.
CREATE TABLE status_event (
    change          INTEGER NOT NULL,
    ord             INTEGER NOT NULL,
    issuer_key_id   INTEGER NOT NULL,
    serial          BLOB NOT NULL,
    status          INTEGER NOT NULL, -- 0: released
    reason          INTEGER NOT NULL,
    revoked_at      INTEGER,
    invalidity_date INTEGER,
    not_after       INTEGER NOT NULL,
    PRIMARY KEY (change, ord)
) STRICT, WITHOUT ROWID;

CREATE TABLE crl (
    issuer_key_id INTEGER NOT NULL REFERENCES issuer_key (id),
    scope         TEXT NOT NULL,
    number        INTEGER NOT NULL,
    shard         INTEGER NOT NULL,
    this_update   INTEGER NOT NULL,
    next_update   INTEGER NOT NULL,
    scheduled     INTEGER NOT NULL,
    change        INTEGER NOT NULL,
    entries       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    der           BLOB NOT NULL,
    PRIMARY KEY (issuer_key_id, scope, number)
) STRICT;

CREATE TABLE lease (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL, -- empty: given back
    token      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
