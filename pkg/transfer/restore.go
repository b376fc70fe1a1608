package transfer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// RestoreConfig says what FinishRestore works with. Store and Now are required.
type RestoreConfig struct {
	// Store is the restored one. No server may have it.
	Store store.Store
	// CRLs are the last lists that verifiers have seen, the complete one of each issuer key. Where certificates were spread
	// over a set of shards of which the backup does not know, one of the set tells of it.
	CRLs []CRLFile
	// Checkpoint is the last head of the audit chain that was seen before the loss; nil when nobody knows.
	Checkpoint *Checkpoint
	Now        func() time.Time
}

// CRLFile is a CRL as it was read, in DER or PEM.
type CRLFile struct {
	Name string // where it came from
	Data []byte
}

// Restored is what FinishRestore did.
type Restored struct {
	Lists  []RestoredList
	Notes  []string   // what a person should look at
	Before store.Head // as the store was when this began
	Again  bool       // an earlier call has noted the break with the same checkpoint
	Lost   int64      // changes between the backup and the checkpoint; 0 when no checkpoint was given
}

// RestoredList is what came of one CRL.
type RestoredList struct {
	Name, Issuer string
	Number       int64
	Entries      int
	Revoked      int // certificates of the store that are revoked or on hold again
	Stubs        int // certificates that the store does not have, and now knows by their number
	Unchanged    int
}

// FinishRestore brings back what a restored backup has forgotten and the world has not: the revocations of the last
// published CRLs. Certificates on them that the store does not know are recorded as stubs, with a serial number and
// nothing else, so that they are answered for as revoked, and listed by every CRL that their address may name (see
// pki.ScopeUnknown). Sets of shards are made again for as long as certificates may name them. CRL numbers go on behind the
// highest seen. The first change says, as audit record, that the chain was broken off.
//
// Everything is checked before anything is written, and calling it again does no harm. What no CRL knows does not come
// back: certificates that were issued since and are good are unknown to the store, OCSP does not answer for them, and
// they cannot be revoked before they are imported; tokens and profiles are those of the backup, and tokens that were
// revoked since are valid again. Every one-time enrollment challenge that was open in the backup may have been used since,
// and ends.
func FinishRestore(ctx context.Context, c RestoreConfig) (Restored, error) {
	var out Restored
	head, err := c.Store.Head(ctx)
	if err != nil {
		return out, err
	}
	out.Before = head
	if head.Change == 0 {
		return out, fault.New(fault.Conflict, "the store is empty").WithHint("restore the backup first")
	}
	lists, err := c.read(ctx)
	if err != nil {
		return out, err
	}
	again, err := c.again(ctx)
	if err != nil {
		return out, err
	}
	if out.Again = again; !again {
		if out.Lost, err = c.compare(ctx, head); err != nil {
			return out, err
		}
	}
	set, err := c.Store.AllIssuers(ctx)
	if err != nil {
		return out, err
	}
	out.Notes = missing(set, lists)
	if !again {
		n, err := c.Store.RevokeChallenges(ctx, store.ChallengeFilter{}, c.Now(), c.breakRecord(head, lists, out.Lost))
		if err != nil {
			return out, err
		}
		if n > 0 {
			out.Notes = append(out.Notes, fmt.Sprintf("%d open enrollment challenges were revoked: they may have been used since the backup; make new ones for devices that still wait", n))
		}
	}
	if err := c.address(ctx, set, lists); err != nil {
		return out, err
	}
	for _, l := range lists {
		done, notes, err := c.take(ctx, l)
		if err != nil {
			return out, err
		}
		out.Lists, out.Notes = append(out.Lists, done), append(out.Notes, notes...)
	}
	return out, nil
}

// list is a CRL that was found good.
type list struct {
	name   string
	der    []byte
	crl    *x509.RevocationList
	number int64
	key    pki.IssuerKey
	issuer string
	scope  string           // empty: it speaks of some certificates, and nobody can tell of which
	shard  int              // as in scope
	at     []pki.CRLAddress // of its set, when it is that of a shard; without the key and times
	latest pki.CRL          // of its scope, that the store has
	fresh  bool             // newer than that
}

// missing says which certificates no list speaks of.
func missing(set store.IssuerSet, lists []list) (notes []string) {
	for _, k := range set.Keys {
		complete, some := false, ""
		shards := map[string]map[int]bool{}
		for _, l := range lists {
			if l.key.ID != k.ID {
				continue
			}
			complete, some = complete || l.scope == pki.ScopeFull, "some CRLs"
			if in, shard, ok := pki.ParseShardScope(l.scope); ok {
				if shards[in] == nil {
					shards[in] = map[int]bool{}
				}
				shards[in][shard] = true
			}
		}
		if complete {
			continue
		}
		if some == "" {
			notes = append(notes, fmt.Sprintf("no CRL was given for issuer %s, key %s: revocations of its certificates since the backup stay lost", nameOf(set, k), k.KeyID))
			continue
		}
		for _, in := range slices.Sorted(maps.Keys(shards)) {
			some = fmt.Sprintf("CRLs of %d of %d shards", len(shards[in]), pki.ShardSetSize(in))
		}
		notes = append(notes, fmt.Sprintf("%s were given for issuer %s, and not the one that speaks of all, %s: revocations that are on others alone stay lost",
			some, nameOf(set, k), pki.CRLPath(k.KeyID, pki.ScopeFull)))
	}
	return notes
}

// address has the sets of shards made again that certificates may name: those of the lists, of which the backup may not
// know, and those of the backup that were in use. Nobody can tell any more when the last of such certificates ends, so that
// they are made as long as the issuer's own certificate lasts.
func (c *RestoreConfig) address(ctx context.Context, set store.IssuerSet, lists []list) error {
	until := map[int64]time.Time{}
	for _, i := range set.Certificates {
		parsed, err := x509.ParseCertificate(i.DER)
		if err != nil {
			return err
		}
		if parsed.NotAfter.After(until[i.IssuerKeyID]) {
			until[i.IssuerKeyID] = parsed.NotAfter.UTC()
		}
	}
	names := map[int64]string{}
	for _, k := range set.Keys {
		names[k.ID] = nameOf(set, k)
	}
	var wanted []pki.CRLAddress
	for _, a := range set.Addresses {
		if pki.ShardSetSize(a.Set) > 0 && a.Until.After(c.Now()) {
			wanted = append(wanted, a)
		}
	}
	for _, l := range lists {
		for _, a := range l.at {
			a.IssuerKeyID = l.key.ID
			wanted = append(wanted, a)
		}
	}
	for _, a := range wanted {
		a.RecordedAt, a.ListedAt, a.Until = c.Now(), time.Time{}, until[a.IssuerKeyID]
		err := c.Store.RecordCRLAddress(ctx, a, audit.Record{
			Time: c.Now(), Action: audit.ActionCRLAddress, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "issuer/" + names[a.IssuerKeyID],
			Detail: map[string]string{"set": a.Set, "url": a.URL, "until": a.Until.Format(time.RFC3339)},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func nameOf(set store.IssuerSet, k pki.IssuerKey) string {
	for _, i := range set.Issuers {
		if i.ID == k.IssuerID {
			return i.Name
		}
	}
	return k.KeyID
}

var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidInvalidityDate           = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidCertificateIssuer        = asn1.ObjectIdentifier{2, 5, 29, 29}
)

// read parses the CRLs and finds the key that signed each.
func (c *RestoreConfig) read(ctx context.Context) ([]list, error) {
	set, err := c.Store.AllIssuers(ctx)
	if err != nil {
		return nil, err
	}
	keys := map[int64]pki.IssuerKey{}
	for _, k := range set.Keys {
		keys[k.ID] = k
	}
	type certificate struct {
		*x509.Certificate
		key pki.IssuerKey
	}
	var certificates []certificate
	for _, i := range set.Certificates {
		parsed, err := x509.ParseCertificate(i.DER)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate of issuer key %s: %w", keys[i.IssuerKeyID].KeyID, err)
		}
		certificates = append(certificates, certificate{parsed, keys[i.IssuerKeyID]})
	}
	var lists []list
	for _, f := range c.CRLs {
		bad := func(format string, args ...any) error {
			return fault.New(fault.BadRequest, "%s: %s", f.Name, fmt.Sprintf(format, args...)).
				WithHint("give the last CRL that was published, as verifiers or caches have it; nothing was changed")
		}
		der := f.Data
		if block, _ := pem.Decode(f.Data); block != nil {
			if block.Type != "X509 CRL" {
				return nil, bad("it holds a %s, no CRL", block.Type)
			}
			der = block.Bytes
		}
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, bad("it is no CRL: %v", err)
		}
		l := list{name: f.Name, der: der, crl: crl, scope: pki.ScopeFull}
		var idp []byte
		if crl.Number == nil || !crl.Number.IsInt64() || crl.Number.Int64() == math.MaxInt64 {
			return nil, bad("it has no number that can be continued")
		}
		l.number = crl.Number.Int64()
		for _, e := range crl.Extensions {
			switch {
			case e.Id.Equal(oidDeltaCRLIndicator):
				return nil, bad("it is a delta CRL, which tells a part only")
			case e.Id.Equal(oidIssuingDistributionPoint):
				idp = e.Value
			}
		}
		for _, issuer := range certificates {
			if bytes.Equal(issuer.RawSubject, crl.RawIssuer) && crl.CheckSignatureFrom(issuer.Certificate) == nil {
				l.key = issuer.key
				break
			}
		}
		if l.key.ID == 0 {
			return nil, bad("none of the issuers in the store has signed it")
		}
		l.issuer = nameOf(set, l.key)
		if idp != nil {
			l.scope, l.shard, l.at = scopeOf(idp, l.key.KeyID)
		}
		l.latest, err = c.Store.LatestCRL(ctx, l.key.ID, cmp.Or(l.scope, pki.ScopeFull), nil)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
		l.fresh = l.number > l.latest.Number
		lists = append(lists, l)
	}
	// The oldest first: what a later one says holds.
	slices.SortStableFunc(lists, func(a, b list) int { return a.crl.Number.Cmp(b.crl.Number) })
	return lists, nil
}

// issuingDistributionPoint is the extension (RFC 5280, Section 5.2.5).
type issuingDistributionPoint struct {
	DistributionPoint struct {
		FullName []asn1.RawValue `asn1:"optional,tag:0"`
	} `asn1:"optional,tag:0"`
	OnlyContainsUserCerts      bool           `asn1:"optional,tag:1"`
	OnlyContainsCACerts        bool           `asn1:"optional,tag:2"`
	OnlySomeReasons            asn1.BitString `asn1:"optional,tag:3"`
	IndirectCRL                bool           `asn1:"optional,tag:4"`
	OnlyContainsAttributeCerts bool           `asn1:"optional,tag:5"`
}

// scopeOf tells by the issuingDistributionPoint of a key's list which it is, and for that of a shard where certificates
// say that its set is. The scope is empty when it is none that we make.
func scopeOf(extension []byte, keyID string) (scope string, shard int, at []pki.CRLAddress) {
	var idp issuingDistributionPoint
	if rest, err := asn1.Unmarshal(extension, &idp); err != nil || len(rest) > 0 {
		return "", 0, nil
	}
	names := idp.DistributionPoint.FullName
	switch {
	case idp.OnlyContainsUserCerts || idp.OnlySomeReasons.BitLength > 0 || idp.IndirectCRL || idp.OnlyContainsAttributeCerts:
		return "", 0, nil
	case idp.OnlyContainsCACerts && len(names) == 0:
		return pki.ScopeCA, 0, nil
	case idp.OnlyContainsCACerts:
		return "", 0, nil
	}
	for _, n := range names {
		// The address of shard 17 of 64 is PUBLIC/crl/KEYID/s64/17.crl.
		public, path, _ := strings.Cut(string(n.Bytes), "/crl/"+keyID+"/")
		is, found := strings.CutSuffix(path, ".crl")
		set, number, ours := pki.ParseShardScope(is)
		if n.Class != asn1.ClassContextSpecific || n.Tag != 6 || !found || !ours || scope != "" && is != scope {
			return "", 0, nil
		}
		scope, shard = is, number
		at = append(at, pki.CRLAddressOf(public, keyID, set))
	}
	return scope, shard, at
}

// again reports whether an earlier call has noted the break with this very checkpoint. The chain goes on from it, and no
// longer leads to the checkpoint.
func (c *RestoreConfig) again(ctx context.Context) (bool, error) {
	if c.Checkpoint == nil {
		return false, nil
	}
	events, _, err := c.Store.AuditEvents(ctx, store.AuditFilter{Action: ActionRestore}, store.Page{Limit: 1})
	if err != nil || len(events) == 0 {
		return false, err
	}
	r, err := audit.Parse(events[0].Bytes)
	if err != nil {
		return false, err
	}
	return r.Detail["checkpoint_head"] == fmt.Sprintf("%x", c.Checkpoint.Head[:]) && r.Detail["checkpoint_change"] == fmt.Sprint(c.Checkpoint.Change), nil
}

// compare returns how many changes lie between the restored head and the checkpoint. It is a Conflict when the restored
// chain is not one that could have led there.
func (c *RestoreConfig) compare(ctx context.Context, head store.Head) (lost int64, err error) {
	if c.Checkpoint == nil {
		return 0, nil
	}
	if c.Checkpoint.Change > head.Change {
		v, err := VerifyChain(ctx, c.Store)
		if err == nil && v.Problem != "" {
			err = fault.New(fault.Conflict, "the audit chain of the restored store is broken: %s", v.Problem).WithHint("restore another backup")
		}
		return c.Checkpoint.Change - head.Change, err
	}
	v, err := VerifyChain(ctx, c.Store, *c.Checkpoint)
	if err == nil && v.Problem != "" {
		err = fault.New(fault.Conflict, "the restored store is not one that the checkpoint is of: %s", v.Problem).
			WithHint("restore another backup, or leave --checkpoint out if the checkpoint is of another store")
	}
	return 0, err
}

func (c *RestoreConfig) breakRecord(head store.Head, lists []list, lost int64) audit.Record {
	detail := map[string]string{"restored_change": fmt.Sprint(head.Change), "restored_head": fmt.Sprintf("%x", head.Hash[:])}
	if c.Checkpoint != nil {
		detail["checkpoint_change"], detail["checkpoint_head"] = fmt.Sprint(c.Checkpoint.Change), fmt.Sprintf("%x", c.Checkpoint.Head[:])
		detail["lost_changes"] = fmt.Sprint(lost)
	}
	var numbers []string
	for _, l := range lists {
		name := l.key.KeyID
		if l.scope != pki.ScopeFull {
			name += "/" + cmp.Or(l.scope, "?")
		}
		numbers = append(numbers, fmt.Sprintf("%s %d", name, l.number))
	}
	if len(numbers) > 0 {
		detail["crls"] = strings.Join(numbers, ", ")
	}
	return audit.Record{Time: c.Now(), Action: ActionRestore, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "store", Detail: detail}
}

// workers is how many entries are on their way at the same time: the store writes them together.
const workers = 64

// take brings the store up to what a list says.
func (c *RestoreConfig) take(ctx context.Context, l list) (RestoredList, []string, error) {
	out := RestoredList{Name: l.name, Issuer: l.issuer, Number: l.number, Entries: len(l.crl.RevokedCertificateEntries)}
	var notes []string
	switch {
	case !l.fresh && bytes.Equal(l.der, l.latest.DER()):
		notes = append(notes, fmt.Sprintf("%s is the newest CRL that the store has: nothing was lost by it", l.name))
	case !l.fresh:
		notes = append(notes, fmt.Sprintf("%s has the number %d, and the store has published %d: holds and changed reasons on it were not taken over", l.name, l.number, l.latest.Number))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards out, first
		first error
		next  = make(chan x509.RevocationListEntry)
	)
	for range workers {
		wg.Go(func() {
			for e := range next {
				what, err := c.entry(ctx, l, e)
				mu.Lock()
				switch {
				case err != nil && first == nil:
					first = err
					cancel()
				case err != nil:
				case what == "stub":
					out.Stubs++
				case what == "revoked":
					out.Revoked++
				default:
					out.Unchanged++
				}
				mu.Unlock()
			}
		})
	}
	on := make(map[string]bool, len(l.crl.RevokedCertificateEntries))
feed:
	for _, e := range l.crl.RevokedCertificateEntries {
		on[string(e.SerialNumber.Bytes())] = true
		select {
		case next <- e:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	if first != nil {
		return out, notes, fmt.Errorf("taking over %s: %w", l.name, first)
	}
	if l.scope == "" {
		return out, append(notes, fmt.Sprintf("%s speaks of some certificates only: its number was not taken over", l.name)), nil
	}
	if !l.fresh {
		return out, notes, nil
	}

	_, entries, err := c.Store.Revocations(ctx, l.key.ID, l.scope)
	if err != nil {
		return out, notes, err
	}
	var released []string
	for e, err := range entries {
		if err != nil {
			return out, notes, err
		}
		number := strings.TrimLeft(string(e.Serial), "\x00")
		if e.Revocation.Status == pki.OnHold && !on[number] && e.NotAfter.After(l.crl.ThisUpdate) {
			released = append(released, e.Serial.String())
		}
	}
	if len(released) > 0 {
		some := released[:min(len(released), 10)]
		notes = append(notes, fmt.Sprintf("%d certificates of issuer %s are on hold in the store and not on the CRL, so they may have been released since; look at them and «certwright cert release»: %s",
			len(released), l.issuer, strings.Join(some, ", ")))
	}

	// The list itself goes into the store: what is published next has a higher number, and until then this is served.
	// It shows an older state than the store has now, so that a new one is made at once.
	err = c.Store.RecordCRL(ctx, nil, pki.CRL{
		IssuerKeyID: l.key.ID, Scope: l.scope, Shard: l.shard, Number: l.number, ThisUpdate: l.crl.ThisUpdate.UTC(), NextUpdate: l.crl.NextUpdate.UTC(),
		Change: l.latest.Change, Entries: out.Entries, Parts: []pki.CRLPart{pki.NewCRLPart(l.der)}, CreatedAt: c.Now(),
	})
	return out, notes, err
}

// entry brings one certificate to the status that the list gives it, and returns "stub", "revoked" or nothing.
func (c *RestoreConfig) entry(ctx context.Context, l list, e x509.RevocationListEntry) (string, error) {
	octets := e.SerialNumber.Bytes()
	if len(octets) == 0 || octets[0]&0x80 != 0 {
		octets = append([]byte{0}, octets...)
	}
	serial, err := pki.SerialNumberFromBytes(octets)
	if err != nil {
		return "", err
	}
	r := pki.Revocation{Status: pki.Revoked, Reason: pki.Reason(e.ReasonCode), RevokedAt: e.RevocationTime.UTC()}
	action, name := pki.ActionRevoke, audit.ActionRevoke
	if r.Reason == pki.CertificateHold {
		r.Status, action, name = pki.OnHold, pki.ActionHold, audit.ActionHold
	}
	for _, x := range e.Extensions {
		switch {
		case x.Id.Equal(oidInvalidityDate):
			if _, err := asn1.UnmarshalWithParams(x.Value, &r.InvalidityDate, "generalized"); err != nil {
				return "", fmt.Errorf("invalidity date of serial number %s: %w", serial, err)
			}
			r.InvalidityDate = r.InvalidityDate.UTC()
		case x.Id.Equal(oidCertificateIssuer):
			return "", fault.New(fault.BadRequest, "the CRL speaks of certificates of other issuers")
		}
	}

	known, err := c.Store.Status(ctx, l.key.ID, serial)
	stub := fault.Is(err, fault.NotFound)
	if err != nil && !stub {
		return "", err
	}
	target := fmt.Sprintf("issuer/%s/%s", l.issuer, serial)
	record := func(action string) audit.Record {
		return audit.Record{
			Time: c.Now(), Action: action, Actor: "host", Role: pki.RoleAdministrator.String(), Target: target,
			Detail: map[string]string{"serial": serial.String(), "reason": r.Reason.String(), "crl": fmt.Sprint(l.number)},
		}
	}
	switch {
	case stub:
		err := c.Store.RecordIssuance(ctx, store.Issuance{Certificate: newStub(l.key, serial, r), Record: record(ActionImport)})
		if err != nil {
			return "", err
		}
	case known == nil && action == pki.ActionHold && !l.fresh:
		return "", nil // may have been released since
	case known == nil:
	case known.Status == pki.OnHold && r.Status == pki.Revoked:
	case known.Status == pki.Revoked && r.Status == pki.Revoked && l.fresh && r.Reason != pki.Unspecified &&
		(r.Reason != known.Reason || !r.InvalidityDate.IsZero() && !r.InvalidityDate.Equal(known.InvalidityDate)):
	default:
		return "", nil
	}
	change := store.StatusChange{
		IssuerID: l.key.IssuerID, Serial: serial, Action: action, Revocation: r,
		BlockKey: action == pki.ActionRevoke && r.Reason == pki.KeyCompromise && !stub, Record: record(name),
	}
	if _, err := c.Store.ChangeStatus(ctx, change); err != nil && !fault.Is(err, fault.AlreadyRevoked) {
		return "", err
	}
	if stub {
		return "stub", nil
	}
	return "revoked", nil
}

// Stubs are marked so that they are told apart from what was issued.
const (
	StubProfile  = "unknown"
	StubProtocol = "restore"
)

// newStub is the record of a certificate of which only the serial number is known. Its fingerprint is none: a hash of
// the issuer key and the serial number stands in its place. Serial numbers of our own making tell the month of notAfter
// and when they were made; of others the end is unknown, so that their entries stay on CRLs.
func newStub(key pki.IssuerKey, serial pki.SerialNumber, r pki.Revocation) pki.Certificate {
	placeholder := func(what string) [32]byte {
		return sha256.Sum256([]byte("certwright stub " + what + " " + key.KeyID + " " + serial.String()))
	}
	c := pki.Certificate{
		IssuerID: key.IssuerID, IssuerKeyID: key.ID, Serial: serial, Fingerprint: placeholder("certificate"), SPKIHash: placeholder("key"),
		Profile: StubProfile, Requester: "host", Protocol: StubProtocol, CRLScope: pki.ScopeUnknown,
		NotBefore: r.RevokedAt.Truncate(time.Second), NotAfter: pki.NoExpiry, IssuedAt: r.RevokedAt.Truncate(time.Second),
	}
	if bucket := serial.Bucket(); bucket != pki.BucketImported {
		if bucket != pki.BucketNever {
			c.NotAfter = time.Date(2000, time.January+time.Month(bucket)+1, 1, 0, 0, -1, 0, time.UTC)
		}
		made := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(binary.BigEndian.Uint32([]byte(serial)[3:7])) * time.Second)
		if made.Before(c.IssuedAt) {
			c.NotBefore, c.IssuedAt = made, made
		}
	}
	return c
}

// RevokeTokens ends every token in force but the one to keep, which must be an administrator's, and returns how many.
func RevokeTokens(ctx context.Context, s store.Tokens, keep string, now time.Time) (int, error) {
	all, err := s.AllTokens(ctx)
	if err != nil {
		return 0, err
	}
	inForce := map[string]pki.Token{}
	for _, t := range all {
		if t.ID != keep && t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || t.ExpiresAt.After(now)) {
			inForce[t.ID] = t
		}
	}
	n := 0
	var failed error
	for _, id := range slices.Sorted(maps.Keys(inForce)) {
		t := inForce[id]
		err := s.RevokeToken(ctx, id, now, audit.Record{
			Time: now, Action: audit.ActionTokenEnd, Actor: "host", Role: pki.RoleAdministrator.String(), Target: "token/" + id,
			Detail: map[string]string{"name": t.Name, "role": t.Role.String()},
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("revoking token %s: %w", t.Name, err))
			continue
		}
		n++
	}
	return n, failed
}
