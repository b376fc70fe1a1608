-- Devices that had certificates or challenges before there was a registry are registered; a device's revocation may be
-- of one profile.
PRAGMA user_version = 10;

-- With revoke_until: only certificates of this profile; empty: of every one.
ALTER TABLE device ADD COLUMN revoke_profile TEXT NOT NULL DEFAULT '';

INSERT INTO device (id, version, status, group_name, owner, labels, subject, sans, note, reason, created_at, created_by, changed_at, changed_by,
	first_seen_at, last_seen_at, last_source, last_point, protocol, certificate, issuer_key_id, serial, not_after,
	failures, renewal_failures, failure, returns, revoke_reason, search_text)
SELECT c.device, 1, 2, '', '', '{}', '', '[]', '', '', c.issued_at, c.requester, c.issued_at, c.requester,
	c.first_at, c.issued_at, c.source, '', '{}', c.fingerprint, c.issuer_key_id, c.serial, c.not_after,
	0, 0, '', 0, 0, lower(c.device)
FROM (
	SELECT device, issued_at, requester, source, fingerprint, issuer_key_id, serial, not_after,
		min(issued_at) OVER (PARTITION BY device) AS first_at,
		row_number() OVER (PARTITION BY device ORDER BY issued_at DESC, serial DESC) AS place
	FROM certificate
	WHERE device <> ''
) c
WHERE c.place = 1
ON CONFLICT (id) DO NOTHING;

INSERT INTO device (id, version, status, group_name, owner, labels, subject, sans, note, reason, created_at, created_by, changed_at, changed_by,
	last_source, last_point, protocol, failures, renewal_failures, failure, returns, revoke_reason, search_text)
SELECT h.device, 1, 1, '', '', '{}', '', '[]', '', '', h.created_at, h.created_by, h.created_at, h.created_by,
	'', '', '{}', 0, 0, '', 0, 0, lower(h.device)
FROM (
	SELECT device, created_at, created_by, row_number() OVER (PARTITION BY device ORDER BY created_at, id) AS place
	FROM challenge
	WHERE device <> ''
) h
WHERE h.place = 1
ON CONFLICT (id) DO NOTHING;
