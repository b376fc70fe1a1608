-- Settings of issuers, the addresses of CRLs that certificates carry, and which CRL speaks of a certificate that is not
-- good.
PRAGMA user_version = 6;

-- config is kept octet by octet, as that of profiles.
CREATE TABLE issuer_settings (
    issuer_id  INTEGER NOT NULL REFERENCES issuer (id),
    version    INTEGER NOT NULL,
    config     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (issuer_id, version)
) STRICT, WITHOUT ROWID;

-- The addresses in cRLDistributionPoints of certificates, for ever. crl_set: full, or the name of a set of shards, whose
-- url has a place for the shard's number. No certificate carries a shard's address before it is listed.
CREATE TABLE crl_address (
    issuer_key_id INTEGER NOT NULL REFERENCES issuer_key (id),
    crl_set       TEXT NOT NULL,
    url           TEXT NOT NULL,
    recorded_at   INTEGER NOT NULL,
    until         INTEGER NOT NULL, -- no certificate that carries it ends later
    listed_at     INTEGER,          -- NULL: not every CRL of the set names it yet
    PRIMARY KEY (issuer_key_id, crl_set, url)
) STRICT, WITHOUT ROWID;

-- The CRL of CA certificates speaks of these too. No other profiles make any.
UPDATE certificate SET crl_scope = 'ca' WHERE crl_scope = 'full' AND profile IN ('root', 'issuing', 'sub-ca');

ALTER TABLE revocation
    ADD COLUMN crl_scope TEXT NOT NULL DEFAULT 'full';

ALTER TABLE status_event
    ADD COLUMN crl_scope TEXT NOT NULL DEFAULT 'full';

UPDATE revocation SET crl_scope = c.crl_scope
FROM certificate c
WHERE c.issuer_id = revocation.issuer_id AND c.bucket = revocation.bucket AND c.serial = revocation.serial AND c.crl_scope <> 'full';

UPDATE status_event SET crl_scope = c.crl_scope
FROM certificate c
WHERE c.issuer_key_id = status_event.issuer_key_id AND c.serial = status_event.serial AND c.crl_scope <> 'full';

-- One scope's entries in the order of its CRL. The complete CRL reads the primary key.
CREATE INDEX revocation_scope ON revocation (issuer_key_id, crl_scope, serial) WHERE crl_scope <> 'full';
