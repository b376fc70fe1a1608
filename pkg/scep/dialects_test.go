package scep_test

import (
	"bufio"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/internal/scepraw"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// What devices send that is not quite as it should be, and means one thing all the same (docs/scep.md, What devices do).

// badCertificate is what an old device has made to sign its first request with. Fields left zero get what a good one has.
type badCertificate struct {
	version    []byte
	serial     []byte // content of the INTEGER
	name       []byte // subject and issuer
	issuer     []byte
	validity   []byte
	extensions [][]byte
	digest     crypto.Hash
	key        *rsa.PrivateKey // that is in it
	by         *rsa.PrivateKey // that signs it
}

// message returns a PKCSReq of a device that has such a certificate.
func (c badCertificate) message(d *device, plaintext []byte) scepraw.Message {
	or := func(b, def []byte) []byte {
		if b == nil {
			return def
		}
		return b
	}
	if c.digest == 0 {
		c.digest = crypto.SHA256
	}
	if c.by == nil {
		c.by = c.key
	}
	spki, err := x509.MarshalPKIXPublicKey(c.key.Public())
	if err != nil {
		panic(err)
	}
	name, serial := or(c.name, scepraw.Name("device")), scepraw.TLV(2, or(c.serial, []byte{7}))
	issuer := or(c.issuer, name)
	algorithm := scepraw.Sequence(scepraw.OID(scepraw.RSAWith[c.digest]), scepraw.Null())
	validity := or(c.validity, scepraw.Sequence(scepraw.TLV(0x17, []byte("250101000000Z")), scepraw.TLV(0x17, []byte("350101000000Z"))))
	var extensions []byte
	if c.extensions != nil {
		extensions = scepraw.Context(3, scepraw.Sequence(c.extensions...))
	}
	tbs := scepraw.Sequence(or(c.version, scepraw.Context(0, scepraw.Int(2))), serial, algorithm, issuer, validity, name, spki, extensions)
	raw := scepraw.Sequence(tbs, algorithm, scepraw.Bits(scepraw.Signature(c.by, c.digest, tbs)))
	m := d.message("19", d.envelope(plaintext).Bytes())
	m.SID, m.Certificates, m.SenderNonce = scepraw.Sequence(issuer, serial), [][]byte{raw}, scepraw.Random(16)
	return m
}

// TestOddCertificates: the certificate that signs a first request is a wrapping for a key (RFC 8894, Section 2.3).
// crypto/x509 refuses most of these.
func TestOddCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	key := deviceKey()
	usage := extension("2.5.29.15", true, []byte{3, 2, 5, 0xa0})
	cn := func(tag byte, text string) []byte {
		return scepraw.Sequence(scepraw.Set(scepraw.Sequence(scepraw.OID("2.5.4.3"), scepraw.TLV(tag, []byte(text)))))
	}
	for name, c := range map[string]badCertificate{
		"as it should be":                   {},
		"version 1":                         {version: []byte{}},
		"version 4":                         {version: scepraw.Context(0, scepraw.Int(3))},
		"a negative serial number":          {serial: []byte{0xfb}},
		"a serial number with zeros before": {serial: []byte{0, 0, 5}},
		"a serial number of 30 octets":      {serial: scepraw.Join([]byte{1}, make([]byte, 29))},
		"an underscore in PrintableString":  {name: cn(0x13, "sensor_17@hall")},
		"Latin-1 in PrintableString":        {name: cn(0x13, "caf\xe9")},
		"Latin-1 in UTF8String":             {name: cn(0x0c, "caf\xe9")},
		"VisibleString":                     {name: cn(0x1a, "sensor")},
		"no name":                           {name: scepraw.Sequence()},
		"times with an offset":              {validity: scepraw.Sequence(scepraw.TLV(0x17, []byte("250101000000+0100")), scepraw.TLV(0x17, []byte("350101000000+0100")))},
		"over for long":                     {validity: scepraw.Sequence(scepraw.TLV(0x17, []byte("000101000000Z")), scepraw.TLV(0x17, []byte("010101000000Z")))},
		"an extension twice":                {extensions: [][]byte{usage, usage}},
		"basicConstraints that are none":    {extensions: [][]byte{extension("2.5.29.19", false, []byte{0})}},
		"a name that is none":               {extensions: [][]byte{sans(scepraw.TLV(0x86, []byte("http://[")))}},
		"a key identifier, critical (Windows)": {extensions: [][]byte{
			extension("2.5.29.35", true, scepraw.Sequence(scepraw.TLV(0x80, []byte("8 octets")))),
		}},
		"signed with MD5": {digest: crypto.MD5},
	} {
		t.Run(name, func(t *testing.T) {
			c.key = key
			m := c.message(d, d.csr(staticText))
			status, _, body := d.post(m.Bytes())
			if status != http.StatusOK {
				t.Fatalf("%d %q", status, body)
			}
			answer, err := scepraw.ReadCertRep(body, d.ra)
			if err != nil {
				t.Fatal(err)
			}
			if status, info, text := answer.Status(); status != "0" {
				t.Fatalf("status %s, failInfo %s, %q", status, info, text)
			}
			// The answer names the certificate as the device did.
			opened, err := scepraw.OpenFor(answer.Content, m.SID, key)
			if err != nil {
				t.Fatal(err)
			}
			list, _, err := scepraw.Degenerate(opened.Plaintext)
			if err != nil || len(list) != 1 {
				t.Errorf("%d certificates in the answer, %v", len(list), err)
			}
		})
	}
	if n := r.count(); n != 1 {
		t.Errorf("one request, repeated, made %d certificates", n)
	}
	// What it says of itself must hold where it can be checked, and it is no one else's (Section 2.3).
	d.id = "another"
	for name, c := range map[string]struct {
		badCertificate
		csr  []byte
		text string
	}{
		"of another CA":             {badCertificate{key: key, issuer: scepraw.Name("another CA"), by: otherKey()}, d.csr(staticText), "self-signed"},
		"of another CA, garbage":    {badCertificate{key: key, issuer: scepraw.Name("another CA"), by: otherKey()}, []byte("x"), "self-signed"},
		"with the issuer's name":    {badCertificate{key: key, issuer: d.issuer.RawSubject, by: otherKey()}, d.csr(staticText), "self-signed"},
		"signed by another key":     {badCertificate{key: key, by: otherKey()}, d.csr(staticText), "self-signed"},
		"its key not the request's": {badCertificate{key: key, serial: []byte{0xfb}}, scepraw.CSR{Key: otherKey(), Challenges: []string{staticText}}.Bytes(), "cannot be decrypted"},
		"no challenge":              {badCertificate{key: key, serial: []byte{0xfb}}, d.csr(), "cannot be decrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			old := d.t
			d.t = t
			defer func() { d.t = old }()
			m := c.message(d, c.csr)
			status, _, body := d.post(m.Bytes())
			if status != http.StatusOK {
				t.Fatalf("%d %q", status, body)
			}
			d.open(m, body).failure(t, "2", c.text)
		})
	}
	if n := r.count(); n != 1 {
		t.Errorf("%d certificates, want 1", n)
	}
}

// Some clients take a certificate's issuer apart and write it anew, with other string types (RFC 5280, Section 7.1).
func TestNamesWrittenAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	own := d.enrolled()
	var parts [][]byte
	for _, a := range own.Issuer.Names {
		id := a.Type.String()
		parts = append(parts, scepraw.Set(scepraw.Sequence(scepraw.OID(id), scepraw.Printable(strings.ToUpper(a.Value.(string))+" "))))
	}
	anew := scepraw.Sequence(parts...)
	rid := func(c *x509.Certificate) []byte { return scepraw.Sequence(anew, scepraw.BigInt(c.SerialNumber)) }
	e := d.envelope(rid(own))
	e.RecipientID = rid(d.ra)
	if got := d.send(d.message("21", e.Bytes())).success(t); !got.Equal(own) {
		t.Error("GetCert brings another certificate")
	}
	if got := d.ask("22", rid(own)); got.status != "0" || len(got.crls) != 1 {
		t.Errorf("GetCRL: status %s %q", got.status, got.text)
	}
	m := d.message("21", d.envelope(rid(own)).Bytes())
	m.SID = rid(own)
	d.send(m).success(t)
	// The serial number counts.
	e.RecipientID = rid(own)
	d.send(d.message("21", e.Bytes())).failure(t, "1")
}

// Paths and parameters as clients build them (RFC 8894, Section 4.1; docs/scep.md, What devices do, 13).
func TestAddresses(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	m := d.message("19", d.envelope(d.csr(staticText)).Bytes())
	m.SenderNonce = scepraw.Random(16)
	b := m.Bytes()
	escaped := url.QueryEscape(base64.StdEncoding.EncodeToString(b))
	for _, path := range []string{
		"/scep/default//pkiclient.exe", "/scep//default", "/scep/default/pkiclient.exe/", "/scep/default/PKICLIENT.EXE", "/cgi-bin/pkiclient.exe/",
		"/certsrv/mscep/mscep.dll", "/certsrv/mscep/mscep.dll/pkiclient.exe", "/scep/cgi-bin/pkiclient.exe",
	} {
		for _, query := range []string{
			"?operation=PKIOperation&message=" + escaped, "?message=" + escaped + "&operation=PKIOperation", "?operation=pkioperation&message=" + escaped,
			"?OPERATION=PKIOPERATION&MESSAGE=" + escaped, "?operation=PKIOperation%20&message=" + escaped,
		} {
			answer, err := http.Get(r.server.URL + path + query)
			if err != nil {
				t.Fatal(err)
			}
			status, _, body := r.read(answer)
			if status != http.StatusOK {
				t.Errorf("%s%.30s: %d %q", path, query, status, body)
				continue
			}
			d.open(m, body).success(t)
		}
	}
	for _, path := range []string{"/scep/other", "/scep/default/other", "/scep/default/cgi-bin", "/scep/a/b/pkiclient.exe", "/cgi-bin", "/mscep.dll"} {
		answer, err := http.Get(r.server.URL + path + "?operation=GetCACaps")
		if err != nil {
			t.Fatal(err)
		}
		if status, _, _ := r.read(answer); status != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, status)
		}
	}
	// Any Content-Type, or none, and a body in pieces.
	for _, mediaType := range []string{"", "application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+"/scep/default?operation=PKIOperation", io.MultiReader(strings.NewReader(string(b))))
		if err != nil {
			t.Fatal(err)
		}
		if mediaType != "" {
			request.Header.Set("Content-Type", mediaType)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _, body := r.read(answer)
		d.open(m, body).success(t)
	}
	if n := r.count(); n != 1 {
		t.Errorf("one request in many forms made %d certificates", n)
	}
}

// A key of 1024 bits leaves no room for OAEP with two digests of SHA-512 (RFC 8017, Section 7.1.1): the answer comes with
// a shorter one.
func TestShortKeyAndLongOAEP(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(newRSAKey(1024))
	d.oaep = crypto.SHA512
	for cipher, want := range map[string]crypto.Hash{scepraw.AES128: crypto.SHA384, scepraw.AES256: crypto.SHA256, scepraw.DES3: crypto.SHA384} {
		d.cipher = cipher
		got := d.ask("22", scepraw.IssuerAndSerial(d.ra))
		if got.status != "0" || len(got.crls) != 1 || got.opened.Cipher != cipher || got.opened.OAEP != want {
			t.Errorf("%s: status %s %q, OAEP %v", cipher, got.status, got.text, got.opened)
		}
	}
	// Such a key gets no certificate (RFC 8894, Section 2.9 has 2048 bits); a shorter one signs nothing.
	r.configure(staticText, nil)
	d.ask("19", d.csr(staticText)).failure(t, "0", "1024 bits")
	r.configure(staticText, func(c *enrollment.Config) { c.Approval = true })
	d.ask("19", d.csr(staticText)).failure(t, "0", "1024 bits")
	// Who has no right to a certificate learns nothing of the key.
	d.ask("19", d.csr("another challenge")).failure(t, "2", "challenge")
	if n := r.count(); n != 0 {
		t.Errorf("%d certificates for a weak key", n)
	}
}

// SHA-1 is announced: a device that knows no other signs its CSR with it too. What it authorises is another question
// (RFC 8894, Sections 3.5.2 and 7.9). MD5 is not accepted anywhere.
func TestSHA1Request(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	d.digest, d.cipher = crypto.SHA1, scepraw.DES3
	csr := scepraw.CSR{Key: d.key, Challenges: []string{r.challenge()}, Digest: crypto.SHA1}
	d.signer = d.ask("19", csr.Bytes()).success(t)
	r.later(d.signer.NotAfter.Sub(d.signer.NotBefore) * 2 / 3)
	d.id, csr.Challenges = "renewal", nil
	d.ask("17", csr.Bytes()).failure(t, "0", "SHA-256")
	d.digest = crypto.SHA256
	d.ask("17", csr.Bytes()).success(t)
	csr.Digest, csr.Challenges = crypto.MD5, []string{r.challenge()}
	d.id = "MD5"
	d.ask("19", csr.Bytes()).failure(t, "2")
}

// Who waits with a challenge out of a file gets the answer under what it has sent, line end and all (RFC 8894, Section 3.1).
func TestWaitingWithLineEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure("", func(c *enrollment.Config) { c.Approval = true })
	d := r.device(newECKey())
	text := r.challenge() + "\n"
	if got := d.ask("19", d.csr(text)); got.status != "3" {
		t.Fatalf("status %s %q, want PENDING", got.status, got.text)
	}
	list, _, err := r.store.ListEnrollments(t.Context(), store.EnrollmentFilter{}, store.Page{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if _, err := r.handler.Approve(t.Context(), pki.System(), "", list[0].ID); err != nil {
		t.Fatal(err)
	}
	got := d.ask("20", scepraw.Sequence(d.issuer.RawSubject, scepraw.Name("device")))
	if got.status != "0" {
		t.Fatalf("status %s %q", got.status, got.text)
	}
	opened, err := scepraw.OpenWithPassword(got.Content, text)
	if err != nil {
		t.Fatal(err)
	}
	got.take(t, opened.Plaintext)
	got.success(t)
}

// The transactionID is made of the key, and the static challenge is everybody's: a request for other names is another request,
// whether the one before was issued or waits (docs/policy.md, 9).
func TestSameKeyOtherNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	r.configure(staticText, nil)
	d := r.device(deviceKey())
	csr := func(cn string, names ...[]byte) []byte {
		c := scepraw.CSR{Key: d.key, Subject: scepraw.Name(cn), Challenges: []string{staticText}}
		if len(names) > 0 {
			c.Attributes = [][]byte{extensions(sans(names...))}
		}
		return c.Bytes()
	}
	for i, names := range [][][]byte{nil, {dns("a.example.com")}, {dns("b.example.com")}, nil} {
		cn := []string{"one", "one", "one", "two"}[i]
		first := d.ask("19", csr(cn, names...)).success(t)
		if first.Subject.CommonName != cn || len(names) > 0 && !strings.Contains(string(names[0]), first.DNSNames[0]) {
			t.Errorf("asked for %s %q, got %v %v", cn, names, first.Subject, first.DNSNames)
		}
		if again := d.ask("19", csr(cn, names...)).success(t); !again.Equal(first) {
			t.Errorf("%s %q: a retry made a second certificate", cn, names)
		}
	}
	if n := r.count(); n != 4 {
		t.Errorf("%d certificates, want 4", n)
	}
	// A one-time challenge was for what it was used for.
	text := r.challenge()
	once := func(cn string) []byte {
		return scepraw.CSR{Key: d.key, Subject: scepraw.Name(cn), Challenges: []string{text}, Digest: crypto.SHA384}.Bytes()
	}
	first := d.ask("19", once("five")).success(t)
	d.ask("19", once("six")).failure(t, "2", "challenge")
	other := scepraw.CSR{Key: d.key, Subject: scepraw.Name("five"), Challenges: []string{text}, Digest: crypto.SHA512}.Bytes()
	if again := d.ask("19", other).success(t); !again.Equal(first) {
		t.Error("a retry with the one-time challenge made a second certificate")
	}
	r.configure(staticText, func(c *enrollment.Config) { c.Approval = true })
	for _, cn := range []string{"three", "three", "four"} {
		if got := d.ask("19", csr(cn)); got.status != "3" {
			t.Fatalf("status %s %q, want PENDING", got.status, got.text)
		}
		list, _, err := r.store.ListEnrollments(t.Context(), store.EnrollmentFilter{States: []pki.EnrollmentState{pki.EnrollmentPending}}, store.Page{})
		if err != nil || len(list) != 1 || list[0].Subject != "CN="+cn {
			t.Errorf("%s: %+v, %v", cn, list, err)
		}
	}
}

// GetCRL of the CA that issued the issuer's own certificate (RFC 8894, Section 4.6).
func TestGetCRLOfTheRoot(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	got := d.ask("22", scepraw.IssuerAndSerial(d.issuer))
	if got.status != "0" || len(got.crls) != 1 {
		t.Fatalf("status %s %q", got.status, got.text)
	}
	list, err := x509.ParseRevocationList(got.crls[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(r.certificates()[2]); err != nil {
		t.Error(err)
	}
}

// A message that is announced as too long is refused before it comes.
func TestTooLongIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	c, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "POST /scep/default?operation=PKIOperation HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%s, want 413", answer.Status) // 400, after the deadline, if it was waited for
	}
}

// What cannot be answered by a CertRep is told in words; what can be is.
func TestWordsForWhatIsNoMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t, keys.P256)
	d := r.device(deviceKey())
	envelope := d.envelope(d.csr(staticText)).Bytes()
	for word, edit := range map[string]func(*scepraw.Message){
		"senderNonce":     func(m *scepraw.Message) { m.Omit = []string{scepraw.SenderNonce} },
		"transactionID":   func(m *scepraw.Message) { m.Omit = []string{scepraw.TransactionID} },
		"PrintableString": func(m *scepraw.Message) { m.TransactionID = "a_b" },
		"appears twice": func(m *scepraw.Message) {
			m.Extra = [][]byte{scepraw.Attribute(scepraw.TransactionID, scepraw.Printable("other"))}
		},
		"content type": func(m *scepraw.Message) { m.OuterType = scepraw.EnvelopedData },
		"follow":       func(m *scepraw.Message) { m.Trailing = []byte("\n") },
		"signerInfo":   func(m *scepraw.Message) { m.SignerInfos = func([]byte) [][]byte { return nil } },
	} {
		m := d.message("19", envelope)
		edit(&m)
		status, header, body := r.post(m.Bytes())
		if status != http.StatusBadRequest || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") || !strings.Contains(string(body), word) {
			t.Errorf("%s: %d %q", word, status, body)
		}
	}
}
