package scep_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/scep"
	"github.com/certwright/certwright/pkg/store"
)

const staticText = "a static challenge"

// The list is what real clients need, letter by letter: strongSwan sees AES and SHA-256 only beside DES3 and SHA-384
// (strongswan/strongswan#1607). RFC 8894, Section 3.5.
func TestGetCACaps(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	want := "AES\nDES3\nPOSTPKIOperation\nRenewal\nSCEPStandard\nSHA-1\nSHA-256\nSHA-384\nSHA-512\n"
	for _, path := range []string{
		"/scep/default", "/scep/default/", "/scep/default/pkiclient.exe", "/scep/default/cgi-bin/pkiclient.exe", "/scep", "/scep/", "/scep/pkiclient.exe",
		"/cgi-bin/pkiclient.exe", "/pkiclient.exe",
	} {
		for _, query := range []string{"", "&message=", "&message=CAIdentifier", "&message=%zz"} {
			answer, err := http.Get(r.server.URL + path + "?operation=GetCACaps" + query)
			if err != nil {
				t.Fatal(err)
			}
			status, header, body := r.read(answer)
			if status != http.StatusOK || header.Get("Content-Type") != "text/plain" || string(body) != want {
				t.Errorf("%s%s: %d %s %q", path, query, status, header.Get("Content-Type"), body)
			}
		}
	}
	for path, want := range map[string]int{
		"/scep/none?operation=GetCACaps":        http.StatusNotFound,
		"/scep/default?operation=GetNextCACert": http.StatusNotFound,
		"/scep/default?operation=Nonsense":      http.StatusBadRequest,
		"/scep/default":                         http.StatusBadRequest,
	} {
		answer, err := http.Get(r.server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if status, _, body := r.read(answer); status != want || len(body) == 0 {
			t.Errorf("%s: %d %q, want %d and a text", path, status, body, want)
		}
	}
}

// RFC 8894, Sections 2.1.2, 2.2, 4.2; what Apple's clients need: docs/scep.md, What devices do, 7 and 8.
func TestGetCACert(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	all := r.certificates()
	if len(all) != 3 || all[2].CheckSignatureFrom(all[2]) != nil {
		t.Fatalf("%d certificates, want the RA's, the issuer's and the root's", len(all))
	}
	ra, ca := all[0], all[1]
	if ra.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || ra.IsCA {
		t.Errorf("the RA's key usage is %b, CA %v", ra.KeyUsage, ra.IsCA)
	}
	if k, ok := ra.PublicKey.(*rsa.PublicKey); !ok || k.N.BitLen() != 2048 {
		t.Errorf("the RA's key is a %T", ra.PublicKey)
	}
	if err := ra.CheckSignatureFrom(ca); err != nil {
		t.Errorf("the RA's certificate: %v", err)
	}
	if again := r.certificates(); !again[0].Equal(ra) {
		t.Error("a second GetCACert gives another RA")
	}
	r.configure("", func(c *enrollment.Config) { c.CACertificates = enrollment.Chain })
	if without := r.certificates(); len(without) != 2 {
		t.Errorf("chain has %d certificates, want the RA's and the issuer's", len(without))
	}
}

// Nothing is open by default.
func TestClosedByDefault(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	for name, csr := range map[string][]byte{
		"no challenge": d.csr(), "blank": d.csr(""), "spaces": d.csr("   "), "a word": d.csr("secret"), "the form of one": d.csr(strings.Repeat("A", 10) + "-" + strings.Repeat("A", 26)),
	} {
		got := d.ask("19", csr)
		if got.failure(t, "2", "challenge"); t.Failed() {
			t.Fatal(name)
		}
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	r.configure("", func(c *enrollment.Config) { c.Disabled = true })
	if status, _, _ := r.get("?operation=GetCACaps"); status != http.StatusNotFound {
		t.Errorf("a disabled point answers %d", status)
	}
}

// Every cipher, digest and key transport comes back as it came (RFC 8894, Section 3.2; docs/scep.md, What devices do, 5).
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	for _, issuer := range []keys.Algorithm{keys.P256, keys.RSA2048} {
		r := newRig(t, issuer)
		r.configure(staticText, nil)
		d := r.device(deviceKey())
		for _, c := range []struct {
			cipher string
			digest crypto.Hash
			oaep   crypto.Hash
			ber    bool
		}{
			{scepraw.AES128, crypto.SHA256, 0, false},
			{scepraw.AES192, crypto.SHA384, crypto.SHA256, false},
			{scepraw.AES256, crypto.SHA512, crypto.SHA1, true},
			{scepraw.DES3, crypto.SHA1, 0, true},
		} {
			d.cipher, d.digest, d.oaep, d.ber, d.id = c.cipher, c.digest, c.oaep, c.ber, string(scepraw.Random(0))+"tx"+c.cipher
			got := d.ask("19", d.csr(staticText))
			cert := got.success(t)
			if err := cert.CheckSignatureFrom(d.issuer); err != nil {
				t.Errorf("%+v: %v", c, err)
			}
			if got.opened.Cipher != c.cipher || got.opened.RecipientInfos != 1 {
				t.Errorf("%+v: answered with cipher %s to %d recipients", c, got.opened.Cipher, got.opened.RecipientInfos)
			}
			if want := map[bool]string{false: scepraw.RSAEncryption, true: scepraw.OAEP}[c.oaep != 0]; !got.opened.KeyAlgorithm.Is(want) {
				t.Errorf("%+v: answered with key transport %x", c, got.opened.KeyAlgorithm.Full)
			}
			if !got.SignatureAlgorithm.Is(scepraw.RSAEncryption) { // strongSwan accepts nothing else
				t.Errorf("%+v: signatureAlgorithm %x", c, got.SignatureAlgorithm.Full)
			}
			if !got.DigestAlgorithm.Is(scepraw.DigestOIDs[c.digest]) {
				t.Errorf("%+v: digestAlgorithm %x", c, got.DigestAlgorithm.Full)
			}
			if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
				t.Errorf("%+v: the certificate has key usage %b, EKU %v", c, cert.KeyUsage, cert.ExtKeyUsage)
			}
		}
	}
}

// GET: unescaped plus signs, line breaks, no padding (smallstep/certificates#916, micromdm/scep#178, #249, #114).
func TestGET(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	m := d.message("19", d.envelope(d.csr(staticText)).Bytes())
	m.SenderNonce = scepraw.Random(16)
	b := m.Bytes()
	text := base64.StdEncoding.EncodeToString(b)
	broken := ""
	for i, c := range text {
		if broken += string(c); i%64 == 63 {
			broken += "%0A"
		}
	}
	for name, message := range map[string]string{
		"escaped": url.QueryEscape(text), "plain": text, "line breaks": strings.ReplaceAll(broken, "+", "%2B"), "no padding": strings.TrimRight(text, "="),
		"base64url": base64.RawURLEncoding.EncodeToString(b), "plus as space": strings.ReplaceAll(text, "+", "%20"),
	} {
		status, header, body := r.get("?operation=PKIOperation&message=" + message)
		if status != http.StatusOK || header.Get("Content-Type") != "application/x-pki-message" {
			t.Errorf("%s: %d %q", name, status, body)
			continue
		}
		d.open(m, body).success(t)
	}
	if n := r.count(); n != 1 {
		t.Errorf("one request in many forms made %d certificates", n)
	}
	for name, query := range map[string]string{"nothing": "", "empty": "&message=", "no base64": "&message=***", "no message": "&message=AAAA"} {
		if status, _, body := r.get("?operation=PKIOperation" + query); status != http.StatusBadRequest || len(body) == 0 {
			t.Errorf("%s: %d %q, want 400 and a text", name, status, body)
		}
	}
	if status, _, _ := r.post(make([]byte, 64<<10+1)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a message that is too long: %d, want 413", status)
	}
}

// What is wrong with a message that everybody can see has a failInfo of its own; what is encrypted has one for all.
// TestLongWordsAreCut: whoever has a challenge can fill a request with words, and neither the audit trail nor an answer with
// them.
func TestLongWordsAreCut(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	long := strings.Repeat("\u00fcx", 10_000)
	extension := func(oid string, value []byte) []byte {
		return scepraw.Attribute("1.2.840.113549.1.9.14", scepraw.Sequence(scepraw.Sequence(scepraw.OID(oid), scepraw.Octets(value))))
	}
	purpose := scepraw.TLV(6, []byte{0x2a}, bytes.Repeat([]byte{1}, 30_000))
	for name, edit := range map[string]func(*scepraw.CSR){
		"an extended key usage": func(c *scepraw.CSR) { c.Attributes = [][]byte{extension("2.5.29.37", scepraw.Sequence(purpose))} },
		"an extension":          func(c *scepraw.CSR) { c.Attributes = [][]byte{extension("1.2.3.4", bytes.Repeat([]byte{1}, 30_000))} },
		"a name": func(c *scepraw.CSR) {
			c.Attributes = [][]byte{extension("2.5.29.17", scepraw.Sequence(scepraw.TLV(0x82, bytes.Repeat([]byte("a."), 15_000))))}
		},
		"a subject": func(c *scepraw.CSR) { c.Subject = scepraw.Name(long) },
		"many subjects": func(c *scepraw.CSR) {
			c.Subject = scepraw.Sequence(bytes.Repeat(scepraw.Set(scepraw.Sequence(scepraw.OID("2.5.4.11"), scepraw.UTF8(strings.Repeat("u", 400)))), 60))
		},
	} {
		d := r.device(otherKey())
		d.id = name
		c := scepraw.CSR{Key: d.key, Challenges: []string{r.challenge()}}
		edit(&c)
		if got := d.ask("19", c.Bytes()); len(got.text) > 1100 {
			t.Errorf("%s: the answer has a text of %d octets", name, len(got.text))
		}
	}
	events, _, err := r.store.AuditEvents(t.Context(), store.AuditFilter{}, store.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if len(e.Bytes) > 6<<10 {
			t.Errorf("a record of %d octets: %.300s", len(e.Bytes), e.Bytes)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	good := d.csr(staticText)
	envelope := d.envelope(good).Bytes()
	stranger := selfSigned(otherKey(), "stranger")
	for name, c := range map[string]struct {
		edit func(*scepraw.Message)
		info string
	}{
		"message type 99 (3.2.1.2)": {func(m *scepraw.Message) { m.MessageType = "99" }, "2"},
		"a CertRep (3.2.1.2)":       {func(m *scepraw.Message) { m.MessageType = "3" }, "2"},
		"message type -1":           {func(m *scepraw.Message) { m.MessageType = "-1" }, "2"},
		"no message type":           {func(m *scepraw.Message) { m.Omit = []string{scepraw.MessageType} }, "2"},
		"not encrypted (3.1)":       {func(m *scepraw.Message) { m.Content = nil }, "2"},
		"a CSR in the clear (3.1)":  {func(m *scepraw.Message) { m.Content = good }, "2"},
		"a wrong signature":         {func(m *scepraw.Message) { m.EditSignature = func(b []byte) []byte { b[9] ^= 1; return b } }, "1"},
		"a wrong messageDigest (3.1)": {func(m *scepraw.Message) {
			m.Replace = map[string][]byte{scepraw.MessageDigest: scepraw.Attribute(scepraw.MessageDigest, scepraw.Octets(make([]byte, 32)))}
		}, "1"},
		"a short nonce (3.2.1.5)":  {func(m *scepraw.Message) { m.SenderNonce = []byte("short") }, "2"},
		"a nonce of 64 octets":     {func(m *scepraw.Message) { m.SenderNonce = scepraw.Random(64) }, "2"},
		"no certificate":           {func(m *scepraw.Message) { m.Certificates = [][]byte{} }, "2"},
		"two signers (3.1)":        {func(m *scepraw.Message) { m.SignerInfos = func(i []byte) [][]byte { return [][]byte{i, i} } }, "2"},
		"content not of type data": {func(m *scepraw.Message) { m.EContentType = scepraw.EnvelopedData }, "2"},
		"AuthEnvelopedData (3.2.2)": {func(m *scepraw.Message) {
			m.Content = scepraw.Envelope{To: d.ra, Plaintext: good, OuterType: "1.2.840.113549.1.9.16.1.23"}.Bytes()
		}, "0"},
		"to another RA": {func(m *scepraw.Message) { m.Content = scepraw.Envelope{To: stranger, Plaintext: good}.Bytes() }, "1"},
		"single DES (2.9)": {func(m *scepraw.Message) {
			m.Content = scepraw.Envelope{To: d.ra, Plaintext: good, Cipher: scepraw.DES}.Bytes()
		}, "0"},
		"MD5 (2.9)":                     {func(m *scepraw.Message) { m.Digest = crypto.MD5 }, "0"},
		"a captured envelope (2.3)":     {func(m *scepraw.Message) { m.Signer, m.Key = stranger, otherKey() }, "2"},
		"a renewal by a stranger (2.4)": {func(m *scepraw.Message) { m.Signer, m.Key, m.MessageType = stranger, otherKey(), "17" }, "2"},
		"a tampered CSR": {func(m *scepraw.Message) {
			m.Content = d.envelope(scepraw.CSR{Key: d.key, Challenges: []string{staticText}, EditSignature: func(b []byte) []byte { b[9] ^= 1; return b }}.Bytes()).Bytes()
		}, "2"},
		"two challenges":    {func(m *scepraw.Message) { m.Content = d.envelope(d.csr(staticText, staticText)).Bytes() }, "2"},
		"a wrong challenge": {func(m *scepraw.Message) { m.Content = d.envelope(d.csr(staticText + "!")).Bytes() }, "2"},
		"garbage":           {func(m *scepraw.Message) { m.Content = d.envelope([]byte("garbage")).Bytes() }, "2"},
		"nothing":           {func(m *scepraw.Message) { m.Content = d.envelope(nil).Bytes() }, "2"},
		"a poll for nothing (4.4)": {func(m *scepraw.Message) {
			m.MessageType, m.Content = "20", d.envelope(scepraw.Sequence(scepraw.Name("a"), scepraw.Name("b"))).Bytes()
		}, "4"},
		"a poll of garbage": {func(m *scepraw.Message) { m.MessageType, m.Content = "20", d.envelope([]byte("x")).Bytes() }, "2"},
		"GetCert of what is not his": {func(m *scepraw.Message) {
			m.MessageType, m.Content = "21", d.envelope(scepraw.IssuerAndSerial(d.ra)).Bytes()
		}, "4"},
		"GetCRL of another CA": {func(m *scepraw.Message) {
			m.MessageType, m.Content = "22", d.envelope(scepraw.IssuerAndSerial(stranger)).Bytes()
		}, "4"},
		"GetCert of nothing": {func(m *scepraw.Message) { m.MessageType, m.Content = "21", d.envelope(scepraw.Sequence()).Bytes() }, "2"},
		"a CSR for a name of the server": {func(m *scepraw.Message) {
			m.Content = d.envelope(scepraw.CSR{Key: d.key, Challenges: []string{staticText}, Subject: scepraw.Name("pki.example.com")}.Bytes()).Bytes()
		}, "2"},
		"a CSR without a subject": {func(m *scepraw.Message) {
			m.Content = d.envelope(scepraw.CSR{Key: d.key, Challenges: []string{staticText}, Subject: scepraw.Sequence()}.Bytes()).Bytes()
		}, "2"},
	} {
		m := d.message("19", envelope)
		c.edit(&m)
		t.Run(name, func(t *testing.T) {
			old := d.t
			d.t = t
			defer func() { d.t = old }()
			d.send(m).failure(t, c.info)
		})
	}
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	for name, edit := range map[string]func(*scepraw.Message){
		"no transactionID":     func(m *scepraw.Message) { m.Omit = []string{scepraw.TransactionID} },
		"no senderNonce":       func(m *scepraw.Message) { m.Omit = []string{scepraw.SenderNonce} },
		"a nonce of nothing":   func(m *scepraw.Message) { m.SenderNonce = []byte{} },
		"a nonce of 65 octets": func(m *scepraw.Message) { m.SenderNonce = scepraw.Random(65) },
		"something behind":     func(m *scepraw.Message) { m.Trailing = []byte{0} },
		"no signedAttrs":       func(m *scepraw.Message) { m.NoAttributes = true },
	} {
		m := d.message("19", envelope)
		edit(&m)
		if status, header, body := r.post(m.Bytes()); status != http.StatusBadRequest || header.Get("Content-Type") == "application/x-pki-message" {
			t.Errorf("%s: %d %q, want 400", name, status, body)
		}
	}
}

// Legacy switches let in what they name, until the day on which they end.
func TestLegacy(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.RSA2048)
	until := enrollment.Date{Time: time.Now().AddDate(0, 0, 10).UTC().Truncate(24 * time.Hour)}
	r.configure(staticText, func(c *enrollment.Config) {
		c.Legacy = map[enrollment.Switch]enrollment.Date{
			enrollment.LegacyDES: until, enrollment.LegacyMD5: until, enrollment.LegacyIssuerKey: until,
		}
	})
	d := r.device(deviceKey())
	d.cipher, d.digest = scepraw.DES, crypto.MD5
	got := d.ask("19", scepraw.CSR{Key: d.key, Challenges: []string{staticText}, Digest: crypto.SHA1}.Bytes())
	if got.success(t); got.opened.Cipher != scepraw.DES || !got.DigestAlgorithm.Is(scepraw.DigestOIDs[crypto.SHA1]) {
		t.Errorf("answered with %s and %x", got.opened.Cipher, got.DigestAlgorithm.Full)
	}
	// The issuer's own key decrypts, and signs the answer.
	own := r.device(otherKey())
	own.ra = own.issuer
	own.ask("19", own.csr(staticText)).success(t)

	r.configure(staticText, func(c *enrollment.Config) { c.CACertificates = enrollment.Single })
	status, header, body := r.get("?operation=GetCACert")
	if c, err := x509.ParseCertificate(body); status != http.StatusOK || header.Get("Content-Type") != "application/x-x509-ca-cert" || err != nil || !c.Equal(d.issuer) {
		t.Errorf("GetCACert, single: %d %s %v", status, header.Get("Content-Type"), err)
	}
	counted := map[string]bool{}
	for _, c := range r.handler.Counts() {
		if c.Operation == "legacy" {
			counted[c.Outcome] = true
		}
	}
	for _, s := range []enrollment.Switch{enrollment.LegacyDES, enrollment.LegacyMD5, enrollment.LegacyIssuerKey} {
		if !counted[string(s)] {
			t.Errorf("the use of switch %s was not counted", s)
		}
	}
	r.later(11 * 24 * time.Hour)
	d.id = "later"
	d.ask("19", d.csr(staticText)).failure(t, "0")
}

// A retry gets the same certificate; the issued certificate, or another challenge, make a new one (docs/scep.md, Renewal).
func TestRetryAndReenrollment(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	first := r.challenge()
	got := d.ask("19", d.csr(first)).success(t)
	for range 2 {
		d.signer = selfSigned(d.key, "device") // strongSwan makes one for each try
		if again := d.ask("19", d.csr(first)).success(t); !again.Equal(got) {
			t.Error("a retry made a second certificate")
		}
	}
	other := *d
	other.id = "another"
	other.ask("19", d.csr(first)).failure(t, "2")
	thief := r.device(otherKey())
	thief.id = d.id
	thief.ask("19", thief.csr(first)).failure(t, "2")

	if next := d.ask("19", d.csr(r.challenge())).success(t); next.Equal(got) || next.SerialNumber.Cmp(got.SerialNumber) == 0 {
		t.Error("a new challenge got the old certificate")
	}
	// A stranger's use of the transactionID, with his own key, blocks nobody, and gets his own.
	if c := thief.ask("19", thief.csr(r.challenge())).success(t); c.PublicKey.(*rsa.PublicKey).Equal(d.key.Public()) {
		t.Error("the certificate of another key")
	}
	// Beyond the window the challenge is used, and that is that.
	last := r.challenge()
	d.id = "last"
	d.ask("19", d.csr(last)).success(t)
	r.later(25 * time.Hour)
	d.ask("19", d.csr(last)).failure(t, "2")
}

// The three forms of renewal, and what is no renewal (docs/scep.md, What devices do, 12; RFC 8894, Sections 2.3, 7.6, 7.9).
func TestRenewal(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	first := d.enrolled()
	life := first.NotAfter.Sub(first.NotBefore)
	d.ask("17", d.csr()).failure(t, "2", "renewed from")
	r.later(life * 2 / 3)

	second := d.ask("17", d.csr()).success(t) // the same key and transactionID
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 || !bytes.Equal(second.RawSubject, first.RawSubject) {
		t.Errorf("renewed %v into %v", first.Subject, second.Subject)
	}
	if again := d.ask("17", d.csr()).success(t); !again.Equal(second) {
		t.Error("a retry of the renewal made another certificate")
	}
	record, err := r.store.Certificate(t.Context(), fingerprint(second))
	if err != nil || record.Replaces != fingerprint(first) {
		t.Errorf("the renewal replaces %v, %v", record.Replaces, err)
	}

	// PKCSReq by the old certificate with a new key; names come from the certificate, not from the request.
	d.signer = second
	r.later(life * 2 / 3)
	d.key = otherKey()
	d.id = "new key"
	third := d.ask("19", scepraw.CSR{Key: d.key, Subject: scepraw.Name("somebody else")}.Bytes()).success(t)
	if third.Subject.CommonName != "device" {
		t.Errorf("a renewal changed the name to %q", third.Subject.CommonName)
	}
	// The old one again: a person has to look at it.
	d.id = "older"
	d.key = d.sign
	if got := d.ask("17", d.csr()); got.status != "3" {
		t.Errorf("an older certificate got status %s %s, want PENDING", got.status, got.text)
	}

	// SHA-1 does not authorise a renewal (7.9), a revoked certificate nothing.
	d.signer, d.sign, d.key = third, otherKey(), otherKey()
	r.later(life * 2 / 3)
	d.id, d.digest = "sha1", crypto.SHA1
	d.ask("17", d.csr()).failure(t, "0")
	d.digest = crypto.SHA256
	if _, err := r.store.ChangeStatus(t.Context(), store.StatusChange{
		IssuerID: record.IssuerID, Serial: serialOf(third), Action: pki.ActionHold, Revocation: pki.Revocation{Reason: pki.CertificateHold, RevokedAt: r.now().Truncate(time.Second)},
	}); err != nil {
		t.Fatal(err)
	}
	d.id = "held"
	d.ask("17", d.csr()).failure(t, "2", "hold")
	d.ask("17", d.csr(r.challenge())).failure(t, "2", "hold")

	// An ended certificate waits, a challenge does not.
	late := r.device(deviceKey())
	late.enrolled()
	r.later(life + 24*time.Hour)
	late.id = "late"
	if got := late.ask("17", late.csr()); got.status != "3" {
		t.Errorf("an ended certificate got status %s %s, want PENDING", got.status, got.text)
	}
	late.id = "late with a challenge"
	late.ask("19", late.csr(r.challenge())).success(t)
}

func TestBoundChallenge(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	bound := r.challenge(func(c *pki.Challenge) {
		c.Subject, c.SANs, c.Device = "CN=sensor-17", []string{"DNS:sensor-17.example.com"}, "sensor-17"
	})
	d.ask("19", d.csr(bound)).failure(t, "2", "another device")
	got := d.ask("19", scepraw.CSR{Key: d.key, Challenges: []string{strings.ToLower(bound)}, Subject: scepraw.Name("Sensor-17")}.Bytes()).success(t)
	if got.Subject.CommonName != "sensor-17" || len(got.DNSNames) != 1 || got.DNSNames[0] != "sensor-17.example.com" {
		t.Errorf("got %v %v", got.Subject, got.DNSNames)
	}
	if c, err := r.store.Certificate(t.Context(), fingerprint(got)); err != nil || c.Device != "sensor-17" || c.Requester != "scep:default" || c.Protocol != "scep" {
		t.Errorf("recorded as %+v, %v", c, err)
	}
}

// Requests that wait: CertPoll (RFC 8894, Section 4.4), tied to the key that asked.
func TestApproval(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure("", func(c *enrollment.Config) { c.Approval = true })
	poll := scepraw.Sequence(scepraw.Name("Issuing CA"), scepraw.Name("device"))
	operator := pki.Principal{Name: "token:op", Role: pki.RoleOperator}
	waiting := func() pki.Enrollment {
		t.Helper()
		list, _, err := r.store.ListEnrollments(t.Context(), store.EnrollmentFilter{States: []pki.EnrollmentState{pki.EnrollmentPending}}, store.Page{Limit: 1})
		if err != nil || len(list) != 1 {
			t.Fatalf("waiting: %v, %v", list, err)
		}
		return list[0]
	}
	d := r.device(deviceKey())
	text := r.challenge(func(c *pki.Challenge) { c.Device = "d1" })
	for range 2 {
		if got := d.ask("19", d.csr(text)); got.status != "3" {
			t.Fatalf("status %s %q, want PENDING", got.status, got.text)
		}
	}
	if got := d.ask("20", poll); got.status != "3" {
		t.Errorf("a poll gets %s %q, want PENDING", got.status, got.text)
	}
	thief := r.device(otherKey())
	thief.id = d.id
	thief.ask("20", poll).failure(t, "4")
	thief.ask("19", thief.csr(text)).failure(t, "2")

	// Another request in its place leaves a trace of the one that waited.
	before := waiting()
	text = r.challenge(func(c *pki.Challenge) { c.Device = "d1" })
	if got := d.ask("19", d.csr(text)); got.status != "3" {
		t.Fatalf("status %s %q, want PENDING", got.status, got.text)
	}
	if record := r.newest(audit.ActionPending); record.Detail["in_place_of"] != before.ID || record.Target == "enrollment/"+before.ID {
		t.Errorf("in place of %s: %+v", before.ID, record)
	}
	e := waiting()
	if e.Subject != "CN=device" || e.Device != "d1" || e.Reason == "" {
		t.Errorf("it waits as %+v", e)
	}
	approved, err := r.handler.Approve(t.Context(), operator, "", e.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.handler.Approve(t.Context(), operator, "", e.ID); err == nil {
		t.Error("approved twice")
	}
	got := d.ask("20", poll).success(t)
	if fingerprint(got) != approved.Issued {
		t.Error("the poll brings another certificate")
	}
	if again := d.ask("19", d.csr(text)).success(t); !again.Equal(got) {
		t.Error("asking again brings another certificate")
	}

	d.id = "denied"
	if got := d.ask("19", d.csr(r.challenge())); got.status != "3" {
		t.Fatalf("status %s, want PENDING", got.status)
	}
	if _, err := r.handler.Deny(t.Context(), operator, "", waiting().ID, "unknown\x1b[31m device"); err != nil {
		t.Fatal(err)
	}
	d.ask("20", poll).failure(t, "2", "unknown?[31m device")

	d.id = "expires"
	if got := d.ask("19", d.csr(r.challenge())); got.status != "3" {
		t.Fatalf("status %s, want PENDING", got.status)
	}
	id := waiting().ID
	r.later(8 * 24 * time.Hour)
	d.ask("20", poll).failure(t, "2", "too long")
	if _, err := r.handler.Approve(t.Context(), operator, "", id); err == nil {
		t.Error("approved what has ended")
	}
	// It is remembered for a while that nobody has decided, and that cannot be missed.
	forget := func(want int) {
		t.Helper()
		if err := r.handler.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		if secrets, err := r.store.AllSecrets(t.Context()); err != nil || len(secrets) != want {
			t.Errorf("%d secrets are kept, %v; want %d: the RA's key, and that of the request", len(secrets), err, want)
		}
	}
	r.later(store.KeepExpired)
	today := int(r.now().Unix() / (24 * 60 * 60))
	counts := []store.Refusal{{Day: today - store.KeepRefusals - 1, Point: "default", Kind: "enroll", Reason: "x", Number: 1}, {Day: today - store.KeepRefusals, Point: "default", Kind: "enroll", Reason: "x", Number: 1}}
	if err := r.store.NoteContacts(t.Context(), nil, counts); err != nil {
		t.Fatal(err)
	}
	forget(2)
	if left, err := r.store.Refusals(t.Context(), 0); err != nil || len(left) != 1 || left[0] != counts[1] {
		t.Errorf("counted are %+v, %v; want those of %d days", left, err, store.KeepRefusals)
	}
	if err := r.handler.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	forget(1)
}

// That nobody has decided on a request is told to the webhook and written into the audit trail, once: however many replicas
// look at the same time, and however the device asks again.
func TestNobodyDecides(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, r *rig) {
		b := r.broker(func(c *enrollment.Config) {
			c.Approval = true
			c.Webhook.Notify = []enrollment.WebhookEvent{enrollment.NotifyFailure}
		})
		poll := scepraw.Sequence(scepraw.Name("Issuing CA"), scepraw.Name("device"))
		const requests = 3
		waiting := make([]*device, requests)
		for i := range waiting {
			waiting[i] = r.device(deviceKey())
			waiting[i].id = fmt.Sprint("request-", i)
			if got := waiting[i].ask("19", waiting[i].csr(staticText)); got.status != "3" {
				t.Fatalf("status %s %q, want PENDING", got.status, got.text)
			}
		}
		pending := store.EnrollmentFilter{States: []pki.EnrollmentState{pki.EnrollmentPending}}
		before, _, err := r.store.ListEnrollments(t.Context(), pending, store.Page{Limit: 10})
		if err != nil || len(before) != requests {
			t.Fatalf("%d wait, %v", len(before), err)
		}
		if err := r.handler.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
		if told := b.told(); len(told) != 0 {
			t.Errorf("before the end the webhook is told %+v", told)
		}

		r.later(8 * 24 * time.Hour)
		// One asks again before anybody has looked: it waits anew.
		if got := waiting[0].ask("19", waiting[0].csr(staticText)); got.status != "3" {
			t.Fatalf("status %s %q, want PENDING", got.status, got.text)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := r.handler.Expire(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		told := b.told()
		if len(told) != requests {
			t.Errorf("the webhook is told %d times of %d requests: %+v", len(told), requests, told)
		}
		seen := map[string]bool{}
		for _, e := range told {
			if e.Type != "failure" || e.Reason != "pending-expired" || e.Detail == "" || seen[e.TransactionID] {
				t.Errorf("the webhook is told %+v", e)
			}
			seen[e.TransactionID] = true
		}
		events, _, err := r.store.AuditEvents(t.Context(), store.AuditFilter{Action: audit.ActionExpire}, store.Page{Limit: 10})
		if err != nil || len(events) != requests {
			t.Errorf("%d records, %v; want %d", len(events), err, requests)
		}

		expired, _, err := r.store.ListEnrollments(t.Context(), store.EnrollmentFilter{States: []pki.EnrollmentState{pki.EnrollmentExpired}, OverAt: r.now()}, store.Page{Limit: 10})
		if err != nil || len(expired) != requests-1 {
			t.Errorf("%d are remembered, %v; want %d: one waits again", len(expired), err, requests-1)
		}
		for _, e := range expired {
			if _, err := r.handler.Approve(t.Context(), pki.Principal{Name: "token:op", Role: pki.RoleOperator}, "", e.ID); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "too long") {
				t.Errorf("approved what has ended: %v", err)
			}
		}
		if err := r.handler.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, d := range waiting[1:] {
			d.ask("20", poll).failure(t, "2", "too long")
		}
		if got := waiting[0].ask("20", poll); got.status != "3" {
			t.Errorf("a poll for what waits anew gets %s %q", got.status, got.text)
		}
		if told := b.told(); len(told) != 0 {
			t.Errorf("the webhook is told again: %+v", told)
		}
	})
}

// Keys that cannot encrypt get their answer under the challenge (RFC 8894, Section 3.1), if that is strong (7.3).
func TestECDSADevices(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(newECKey())
	open := func(got *rep, text string) *x509.Certificate {
		t.Helper()
		if got.status != "0" {
			t.Fatalf("status %s %q", got.status, got.text)
		}
		e, err := cms.ParseEnvelopedData(got.Content, cms.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.DecryptWithPassword([]byte(text), cms.PasswordOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got.take(t, b)
		return got.success(t)
	}
	text := r.challenge()
	first := open(d.ask("19", d.csr(text)), text)
	if again := open(d.ask("19", d.csr(text)), text); !again.Equal(first) {
		t.Error("a retry made a second certificate")
	}
	// A challenge out of a file, with its line end: the answer's password is what the device has sent.
	d.id, text = "line end", " "+r.challenge()+"\n"
	for range 2 {
		open(d.ask("19", d.csr(text)), text)
	}
	d.id = "static"
	d.ask("19", d.csr(staticText)).failure(t, "2", "one-time challenge")
	d.id, d.signer = "renewal", first
	r.later(first.NotAfter.Sub(first.NotBefore) * 2 / 3)
	d.ask("17", d.csr()).failure(t, "2", "one-time challenge")

	r.configure("", func(c *enrollment.Config) { c.Approval = true })
	d = r.device(newECKey())
	text = r.challenge()
	if got := d.ask("19", d.csr(text)); got.status != "3" {
		t.Fatalf("status %s, want PENDING", got.status)
	}
	list, _, err := r.store.ListEnrollments(t.Context(), store.EnrollmentFilter{}, store.Page{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if _, err := r.handler.Approve(t.Context(), pki.System(), "", list[0].ID); err != nil {
		t.Fatal(err)
	}
	open(d.ask("20", scepraw.Sequence(scepraw.Name("a"), scepraw.Name("b"))), text)
}

// GetCert and GetCRL name the CA as issuer, also behind an RA (docs/scep.md, What devices do, 15; RFC 8894, Sections 4.5, 4.6).
func TestGetCertAndGetCRL(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	own := d.enrolled()
	if got := d.ask("21", scepraw.IssuerAndSerial(own)).success(t); !got.Equal(own) {
		t.Error("GetCert brings another certificate")
	}
	other := r.device(otherKey())
	theirs := other.enrolled()
	d.ask("21", scepraw.IssuerAndSerial(theirs)).failure(t, "4")
	deadline := time.Now().Add(time.Minute)
	for {
		got := d.tryAsk("22", scepraw.IssuerAndSerial(own))
		if got != nil {
			if got.status != "0" || len(got.crls) != 1 || len(got.certificates) != 0 {
				t.Fatalf("GetCRL: %s %q, %d CRLs, %d certificates", got.status, got.text, len(got.crls), len(got.certificates))
			}
			list, err := x509.ParseRevocationList(got.crls[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := list.CheckSignatureFrom(d.issuer); err != nil {
				t.Error(err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no CRL")
		}
		if err := r.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tryAsk is ask, and nil when the server says 503.
func (d *device) tryAsk(messageType string, plaintext []byte) *rep {
	d.t.Helper()
	m := d.message(messageType, d.envelope(plaintext).Bytes())
	m.SenderNonce = scepraw.Random(16)
	status, _, body := d.post(m.Bytes())
	if status == http.StatusServiceUnavailable {
		return nil
	}
	return d.open(m, body)
}

// The RA's key stays on renewal, its certificate is renewed by itself, and a key that was replaced still decrypts for a
// while (docs/scep.md, What devices do, 8).
func TestRARenewalAndRotation(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	old := r.device(deviceKey())
	renew := func() {
		t.Helper()
		if err := r.ra.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	renew()
	if !r.certificates()[0].Equal(old.ra) {
		t.Error("a fresh RA certificate was renewed")
	}
	r.later(old.ra.NotAfter.Sub(old.ra.NotBefore) * 3 / 4)
	renew()
	renewed := r.device(deviceKey())
	if renewed.ra.Equal(old.ra) || !bytes.Equal(renewed.ra.RawSubjectPublicKeyInfo, old.ra.RawSubjectPublicKeyInfo) {
		t.Error("the RA's certificate was not renewed with its key")
	}
	i, err := r.issuers.Current().Issuer("issuing")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ra.Rotate(t.Context(), i, pki.System()); err != nil {
		t.Fatal(err)
	}
	rotated := r.device(deviceKey())
	if bytes.Equal(rotated.ra.RawSubjectPublicKeyInfo, old.ra.RawSubjectPublicKeyInfo) {
		t.Error("the RA's key was not replaced")
	}
	for name, d := range map[string]*device{"first": old, "renewed": renewed, "rotated": rotated} {
		d.id = name
		d.ask("19", d.csr(staticText)).success(t) // whoever it is encrypted to signs the answer
	}
	r.later(101 * 24 * time.Hour)
	renew() // and nothing else has changed: the first key has had its time
	refused := func() *device {
		t.Helper()
		newest := r.device(deviceKey())
		m := old.message("19", old.envelope(old.csr(staticText)).Bytes())
		m.SenderNonce = scepraw.Random(16)
		_, _, body := r.post(m.Bytes())
		newest.open(m, body).failure(t, "1", "another certificate")
		return newest
	}
	refused()
	if err := r.ra.Rotate(t.Context(), i, pki.System()); err != nil {
		t.Fatal(err)
	}
	newest := refused()
	newest.id = "newest"
	newest.ask("19", newest.csr(staticText)).success(t)
	if secrets, err := r.store.AllSecrets(t.Context()); err != nil || len(secrets) != 3 { // two keys and the static challenge
		t.Errorf("%d secrets are kept, %v", len(secrets), err)
	}
}

// One challenge, one certificate, whoever is at it.
func TestChallengeOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	text := r.challenge()
	d := r.device(deviceKey())
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := map[string]int{}
	for i := range 8 {
		own := *d
		own.id = string(rune('a' + i))
		if i%2 == 1 {
			own.id = "the same"
		}
		m := own.message("19", own.envelope(d.csr(text)).Bytes())
		m.SenderNonce = scepraw.Random(16)
		wg.Go(func() {
			_, _, body := r.post(m.Bytes())
			got := own.open(m, body)
			mu.Lock()
			defer mu.Unlock()
			if got.status == "0" {
				good[own.id]++
			} else {
				got.failure(t, "2")
			}
		})
	}
	wg.Wait()
	if n := r.count(); n != 1 || len(good) != 1 {
		t.Errorf("%d certificates for one challenge; answered %v", n, good)
	}
}

// That an issuer cannot issue is not counted against the names of devices.
func TestReasonOfFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want enrollment.Reason
	}{
		{fault.New(fault.PolicyRefused, "a name").WithField("sans"), enrollment.ReasonNames},
		{fault.New(fault.BadCSR, "a name").WithField("subject"), enrollment.ReasonNames},
		{fault.New(fault.PolicyRefused, "a condition").WithField("profile"), enrollment.ReasonNames},
		{fault.New(fault.PolicyRefused, "it has ended").WithField("issuer"), enrollment.ReasonOther},
		{fault.New(fault.PolicyRefused, "it cannot be renewed"), enrollment.ReasonOther},
		{fault.New(fault.BadPublicKey, "a key"), enrollment.ReasonKey},
		{store.RefuseDevice("d"), enrollment.ReasonDeviceBlocked},
		{fault.New(fault.Conflict, "x"), enrollment.ReasonOther},
	} {
		if got := scep.ReasonOf(tt.err); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got, tt.want)
		}
	}
}
