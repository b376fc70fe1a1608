package rest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/keys"
)

// policy says what certificates of a profile may be, in words of crypto/x509 and regular expressions: written down from the
// documents, apart from the code that is judged.
type policy struct {
	profile  string
	config   string // of a custom profile
	issuer   string
	ekus     []string
	usage    map[x509.PublicKeyAlgorithm]x509.KeyUsage // exactly; a key that is not here is not certified
	life     time.Duration
	backdate time.Duration
	isCA     bool
	dns      *regexp.Regexp // nil: none, as with all names
	ip       *net.IPNet
	anyIP    bool
	email    *regexp.Regexp
	uri      *regexp.Regexp
	upn      *regexp.Regexp
	modules  *regexp.Regexp      // hardware module names
	subject  map[string][]string // attribute types allowed, by OID, with their only values; empty: any
	needs    func(c *x509.Certificate, names []string) bool
}

const (
	day        = 24 * time.Hour
	signs      = x509.KeyUsageDigitalSignature
	enciphers  = x509.KeyUsageKeyEncipherment
	agrees     = x509.KeyUsageKeyAgreement
	serverAuth = "1.3.6.1.5.5.7.3.1"
	clientAuth = "1.3.6.1.5.5.7.3.2"
)

var (
	anyHost = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9-]*[a-z-][a-z0-9-]*$`)
	anyMail = regexp.MustCompile(`^[!-~]+@[a-z0-9.-]+$`)
	anyURI  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$`)
	anyText = regexp.MustCompile(`^[^\x00-\x1f\x7f\x{202a}-\x{202e}\x{2066}-\x{2069}]+$`)

	signsOnly    = map[x509.PublicKeyAlgorithm]x509.KeyUsage{x509.ECDSA: signs, x509.Ed25519: signs, x509.RSA: signs}
	alsoEncipher = map[x509.PublicKeyAlgorithm]x509.KeyUsage{x509.ECDSA: signs, x509.Ed25519: signs, x509.RSA: signs | enciphers}

	common   = []string{"2.5.4.3", "2.5.4.10", "2.5.4.11", "2.5.4.6", "2.5.4.8", "2.5.4.7", "2.5.4.5"}
	personal = []string{"0.9.2342.19200300.100.1.25", "0.9.2342.19200300.100.1.1", "1.2.840.113549.1.9.1", "2.5.4.42", "2.5.4.4", "2.5.4.12"}
)

func types(lists ...[]string) map[string][]string {
	out := map[string][]string{}
	for _, oid := range slices.Concat(lists...) {
		out[oid] = nil
	}
	return out
}

func hasHost(c *x509.Certificate, _ []string) bool { return len(c.DNSNames)+len(c.IPAddresses) > 0 }

func policies() []policy {
	_, ten, _ := net.ParseCIDR("10.0.0.0/8")
	return []policy{
		{
			profile: "server", ekus: []string{serverAuth}, usage: alsoEncipher, life: 397 * day, backdate: 5 * time.Minute,
			dns: anyHost, anyIP: true, uri: anyURI, subject: types(common), needs: hasHost,
		},
		{
			profile: "client", ekus: []string{clientAuth}, usage: signsOnly, life: 825 * day, backdate: 5 * time.Minute,
			dns: anyHost, anyIP: true, email: anyMail, uri: anyURI, upn: anyText, subject: types(common, personal),
			needs: func(c *x509.Certificate, _ []string) bool { return c.Subject.CommonName != "" },
		},
		{
			profile: "device", ekus: []string{clientAuth}, usage: alsoEncipher, life: 3650 * day, backdate: 5 * time.Minute,
			dns: anyHost, anyIP: true, email: anyMail, uri: anyURI, upn: anyText, subject: types(common, []string{personal[0], personal[1], "2.5.4.46"}),
			needs: func(c *x509.Certificate, _ []string) bool {
				return c.Subject.CommonName != "" || c.Subject.SerialNumber != ""
			},
		},
		{
			profile: "email", ekus: []string{"1.3.6.1.5.5.7.3.4"}, life: 825 * day, backdate: 5 * time.Minute,
			usage: map[x509.PublicKeyAlgorithm]x509.KeyUsage{x509.ECDSA: signs | agrees, x509.RSA: signs | enciphers},
			email: anyMail, upn: anyText, subject: types(common, personal),
			needs: func(c *x509.Certificate, _ []string) bool { return len(c.EmailAddresses) > 0 },
		},
		{
			profile: "sub-ca", issuer: "root", life: 3650 * day, backdate: day, isCA: true, subject: types(common, []string{personal[0], "2.5.4.97"}),
			usage: map[x509.PublicKeyAlgorithm]x509.KeyUsage{
				x509.ECDSA: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, x509.Ed25519: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, x509.RSA: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			},
			needs: func(c *x509.Certificate, names []string) bool { return c.Subject.CommonName != "" && len(names) == 0 },
		},
		{
			profile: "narrow", ekus: []string{serverAuth, clientAuth}, life: 2 * day, backdate: time.Minute,
			usage: map[x509.PublicKeyAlgorithm]x509.KeyUsage{x509.ECDSA: signs},
			config: `{"name":"narrow","kind":"peer","keyAlgorithms":["p-256"],"validity":{"max":"2d","backdate":"1m","clamp":true},
				"subject":{"allowed":["CN","OU"],"values":{"OU":["a","b"]},"fixed":[{"type":"C","value":"DE"},{"type":"O","value":"Acme"}]},
				"sans":{"dns":{"suffixes":["example.com"],"denied":["secret.example.com"],"wildcards":true},"ip":{"networks":["10.0.0.0/8"],"denied":["10.9.0.0/16"]},"requireOneOf":["dns"],"max":3},
				"conditions":[{"expr":"sans.dns.all(n, !n.startsWith('x'))"}]}`,
			dns: regexp.MustCompile(`^([*a-wyz0-9][a-z0-9-]*\.([a-z0-9-]+\.)*)?example\.com$`), ip: ten, subject: map[string][]string{"2.5.4.3": nil, "2.5.4.11": {"a", "b"}, "2.5.4.6": {"DE"}, "2.5.4.10": {"Acme"}},
			needs: func(c *x509.Certificate, names []string) bool {
				return len(c.DNSNames) > 0 && len(names) <= 3 && slices.Equal(c.Subject.Country, []string{"DE"}) && slices.Equal(c.Subject.Organization, []string{"Acme"}) &&
					!slices.ContainsFunc(c.DNSNames, func(n string) bool { return n == "secret.example.com" || strings.HasSuffix(n, ".secret.example.com") }) &&
					!slices.ContainsFunc(c.IPAddresses, func(a net.IP) bool { return a.To4()[1] == 9 })
			},
		},
		{
			profile: "sensors", ekus: []string{clientAuth}, usage: alsoEncipher, life: day, backdate: 0,
			config: `{"name":"sensors","kind":"device","validity":{"max":"1d","backdate":"0s"},"strictSubject":true,
				"subject":{"allowed":[],"required":[],"templates":[{"type":"CN","value":"{device|CN}"},{"type":"serialNumber","value":"SN-{serialNumber|device}"}]},
				"sans":{"uri":{"prefixes":["urn:acme:sensor:"]},"dns":{"suffixes":[".sensors.example.com"]},"hardwareModuleName":{"types":["1.3.6.1.4.1.99999.1"]},
					"templates":["URI:urn:acme:sensor:{device|CN}","HMN:1.3.6.1.4.1.99999.1/{serialNumber|device}"],"onlyTemplates":true}}`,
			uri: regexp.MustCompile(`^urn:acme:sensor:[A-Za-z0-9._~%-]+$`), modules: regexp.MustCompile(`^1\.3\.6\.1\.4\.1\.99999\.1/[!-~]+$`),
			subject: types([]string{"2.5.4.3", "2.5.4.5"}),
			needs: func(c *x509.Certificate, names []string) bool {
				return len(names) == 2 && len(c.URIs) == 1 && strings.HasPrefix(c.Subject.SerialNumber, "SN-") && c.Subject.CommonName != ""
			},
		},
	}
}

var (
	requestTexts = []string{
		"a.example.com", "B.Example.com", "*.example.com", "secret.example.com", "x.secret.example.com", "xa.example.com", "example.com", "evil.org", "*.org", "*",
		"10.1.2.3", "10.9.1.1", "192.0.2.1", "::ffff:10.1.2.3", "2001:db8::1", "127.0.0.1", "a@example.com", "A@B.example.org", "\"x\"@example.com",
		"https://a.example.com/", "urn:acme:sensor:1", "urn:other:1", "spiffe://example.com/a/../b", "sensor-17", "Ada Lovelace", "a", "b", "DE", "US", "Acme", "Evil Corp",
		"", " ", "a\x00b", "a\nb", "\u202etxt.exe", "m\u00fcller.example.com", "xn--mller-kva.example.com", strings.Repeat("a", 70), strings.Repeat("a.", 130), "{device}", "a/b?c#d", "..",
	}
	tame         = []string{"a.example.com", "b.example.com", "sensor-17", "a", "a@example.com", "10.1.2.3"}
	requestTypes = []asn1.ObjectIdentifier{
		{2, 5, 4, 3},
		{2, 5, 4, 3},
		{2, 5, 4, 10},
		{2, 5, 4, 11},
		{2, 5, 4, 6},
		{2, 5, 4, 5},
		{2, 5, 4, 12},
		{1, 2, 840, 113549, 1, 9, 1},
		{0, 9, 2342, 19200300, 100, 1, 1},
		{0, 9, 2342, 19200300, 100, 1, 25},
		{2, 5, 4, 45},
		{1, 2, 3, 4},
	}
	ekuOIDs = []asn1.ObjectIdentifier{
		{1, 3, 6, 1, 5, 5, 7, 3, 1}, {1, 3, 6, 1, 5, 5, 7, 3, 2}, {1, 3, 6, 1, 5, 5, 7, 3, 3}, {1, 3, 6, 1, 5, 5, 7, 3, 9}, {2, 5, 29, 37, 0}, {1, 3, 6, 1, 5, 5, 7, 3, 28}, {1, 2, 3},
	}
)

func drawText(t *rapid.T) string {
	if rapid.IntRange(0, 4).Draw(t, "tame") > 0 {
		return rapid.SampledFrom(tame).Draw(t, "text")
	}
	return rapid.OneOf(rapid.SampledFrom(requestTexts), rapid.String()).Draw(t, "text")
}

// drawCSR makes a request that asks for everything that there is.
func drawCSR(t *rapid.T, signers []crypto.Signer) []byte {
	var subject cryptobyte.Builder
	subject.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for range rapid.IntRange(0, 3).Draw(t, "attributes") {
			oid, text := rapid.SampledFrom(requestTypes).Draw(t, "type"), drawText(t)
			if oid.String() == "2.5.4.6" && rapid.IntRange(0, 3).Draw(t, "country") > 0 {
				text = "DE"
			}
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oid)
					b.AddASN1(rapid.SampledFrom([]cbasn1.Tag{cbasn1.UTF8String, cbasn1.UTF8String, cbasn1.PrintableString, cbasn1.T61String}).Draw(t, "string"),
						func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
				})
			})
		}
	})
	template := &x509.CertificateRequest{RawSubject: subject.BytesOrPanic()}
	extension := func(critical bool, oid []int, value []byte) {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: value})
	}
	maybe := func(label string, oneIn int) bool { return rapid.IntRange(1, oneIn).Draw(t, label) == 1 }
	if maybe("with names", 2) {
		var sans cryptobyte.Builder
		sans.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for range rapid.IntRange(1, 3).Draw(t, "names") {
				text := []byte(drawText(t))
				switch rapid.IntRange(0, 11).Draw(t, "kind") {
				case 0:
					b.AddASN1(cbasn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(text) })
				case 1:
					b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(text) })
				case 2:
					b.AddASN1(cbasn1.Tag(7).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte{10, byte(len(text)), 1, 1}) })
				case 3, 4:
					oid := rapid.SampledFrom([]asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}, {1, 3, 6, 1, 5, 5, 7, 8, 4}, {1, 2, 3}}).Draw(t, "otherName")
					b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oid)
						b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes(text) })
						})
					})
				case 5:
					b.AddASN1(cbasn1.Tag(4).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(template.RawSubject) })
				default:
					b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(text) })
				}
			}
		})
		if raw, err := sans.Bytes(); err == nil {
			extension(maybe("critical names", 4), []int{2, 5, 29, 17}, raw)
		}
	}
	if maybe("key usage", 3) {
		extension(true, []int{2, 5, 29, 15}, []byte{3, 2, 0, byte(rapid.IntRange(0, 255).Draw(t, "bits"))})
	}
	if maybe("purposes", 4) {
		if raw, err := asn1.Marshal(rapid.SliceOfN(rapid.SampledFrom(ekuOIDs), 1, 3).Draw(t, "ekus")); err == nil {
			extension(false, []int{2, 5, 29, 37}, raw)
		}
	}
	if maybe("CA", 8) {
		extension(true, []int{2, 5, 29, 19}, []byte{0x30, 6, 1, 1, 0xff, 2, 1, 9})
	}
	if maybe("more", 6) {
		extension(false, []int{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, []byte{5, 0})                          // nocheck
		extension(true, []int{2, 5, 29, 30}, []byte{0x30, 5, 0xa0, 3, 0x30, 1, 0x82})                 // nameConstraints
		extension(false, []int{2, 5, 29, 31}, []byte{0x30, 0})                                        // cRLDistributionPoints
		extension(true, []int{1, 2, 3, 4, 5}, []byte{5, 0})                                           // nobody knows
		extension(false, []int{2, 5, 29, 32}, []byte{0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0x00}) // anyPolicy
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, template, signers[rapid.IntRange(0, len(signers)-1).Draw(t, "key")])
	if err != nil {
		t.Skip(err)
	}
	return raw
}

func drawBody(t *rapid.T, p *policy, csr []byte) map[string]any {
	body := map[string]any{"profile": p.profile, "issuer": "issuing", "csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))}
	if p.issuer != "" {
		body["issuer"] = p.issuer
	}
	if rapid.IntRange(0, 3).Draw(t, "subject") == 0 {
		body["subject"] = rapid.SampledFrom([]string{"CN=", "CN=", "OU=a,CN=", "/O=Acme/CN=", "emailAddress=a@example.com,CN=", "serialNumber=7,CN=", "C=DE,CN=", "2.5.4.45=x,CN="}).Draw(t, "dn") + drawText(t)
	}
	if rapid.IntRange(0, 3).Draw(t, "sans") == 0 {
		var sans []string
		for range rapid.IntRange(0, 3).Draw(t, "names") {
			sans = append(sans, rapid.SampledFrom([]string{"", "", "DNS:", "IP:", "email:", "URI:", "UPN:", "HMN:1.3.6.1.4.1.99999.1/", "HMN:1.2.3/"}).Draw(t, "prefix")+drawText(t))
		}
		body["sans"] = sans
	}
	switch rapid.IntRange(0, 5).Draw(t, "end") {
	case 0:
		body["validity"] = rapid.SampledFrom([]string{"1h", "1d", "2d", "90d", "397d", "398d", "11y", "100y", "-1h", "1s"}).Draw(t, "validity")
	case 1:
		body["not_after"] = time.Now().Add(time.Duration(rapid.Int64Range(-1e6, 5e8).Draw(t, "not_after")) * time.Second).UTC().Format(time.RFC3339)
	}
	if rapid.IntRange(0, 2).Draw(t, "device") == 0 {
		body["device"] = drawText(t)
	}
	return body
}

// TestNoCertificateLeavesItsProfile: whatever CSR and request are sent, by an administrator even, a certificate has no
// purpose, key usage, CA bit, name or life outside its profile, and no extension that nobody meant it to have.
func TestNoCertificateLeavesItsProfile(t *testing.T) {
	r := newRig(t)
	var signers []crypto.Signer
	for _, a := range []keys.Algorithm{keys.P256, keys.P256, keys.P384, keys.Ed25519, keys.RSA2048} {
		k, err := keys.Generate(a)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, k)
	}
	var roots struct{ Issuers []Issuer }
	r.must("administrator", "GET", "/issuers", nil, &roots)
	parents := map[string]*x509.Certificate{}
	for _, i := range roots.Issuers {
		block, _ := pem.Decode([]byte(i.PEM))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		parents[i.Name] = c
	}
	enough := 40
	if raceDetector {
		enough = 15
	}
	all := policies()
	accepted, synced := map[string]int{}, time.Now()
	for i := range all {
		p := &all[i]
		if p.config != "" {
			r.must("administrator", "POST", "/profiles", json.RawMessage(p.config), nil)
		}
		own := signers
		property := func(rt *rapid.T) {
			if raceDetector && accepted[p.profile] >= enough { // what a race detector is to see, the first ones show
				return
			}
			if p.isCA { // the key of a CA is not certified for anything else afterwards
				k, err := keys.Generate(keys.P256)
				if err != nil {
					rt.Fatal(err)
				}
				own = []crypto.Signer{k}
			}
			if time.Since(synced) > 10*time.Second { // tokens are not taken while the store has not been heard of for a minute
				synced = time.Now()
				if err := r.sync(t.Context()); err != nil {
					rt.Fatal(err)
				}
			}
			body := drawBody(rt, p, drawCSR(rt, own))
			before := time.Now()
			status, answer := r.call("administrator", "POST", "/certificates", body)
			if status >= 400 && status < 500 {
				return
			}
			if status != http.StatusCreated {
				rt.Fatalf("%v: %d %s", body, status, answer)
			}
			accepted[p.profile]++
			var c Certificate
			if err := json.Unmarshal(answer, &c); err != nil {
				rt.Fatal(err)
			}
			judge(rt, p, c, parents[body["issuer"].(string)], before)
			// What is renewed stays inside as well.
			if !p.isCA && rapid.IntRange(0, 4).Draw(rt, "renew") == 0 {
				renewal := map[string]any{"validity": rapid.SampledFrom([]string{"1h", "1d", "3y", "20y"}).Draw(rt, "validity")}
				before := time.Now()
				if status, answer := r.call("administrator", "POST", "/certificates/"+c.ID+"/renew", renewal); status == http.StatusCreated {
					if err := json.Unmarshal(answer, &c); err != nil {
						rt.Fatal(err)
					}
					judge(rt, p, c, parents[body["issuer"].(string)], before)
				} else if status >= 500 {
					rt.Fatalf("renewal: %d %s", status, answer)
				}
			}
		}
		for range 40 {
			if rapid.Check(t, property); accepted[p.profile] >= enough {
				break
			}
		}
		if accepted[p.profile] < enough {
			t.Errorf("%d requests were accepted for %s: the property says nothing", accepted[p.profile], p.profile)
		}
	}
}

// judge holds a certificate to a policy.
func judge(t *rapid.T, p *policy, record Certificate, parent *x509.Certificate, before time.Time) {
	block, _ := pem.Decode([]byte(record.PEM))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatalf("%s: %v", record.PEM, err)
	}
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			t.Errorf("%s, %s: "+format, append([]any{record.Subject, record.SANs}, args...)...)
		}
	}
	bad(c.CheckSignatureFrom(parent) == nil, "not signed by the issuer")
	bad(record.Profile == p.profile, "profile %s", record.Profile)

	// Rights.
	usage, certified := p.usage[c.PublicKeyAlgorithm]
	bad(certified && c.KeyUsage == usage, "key usage %b of a %s key", c.KeyUsage, c.PublicKeyAlgorithm)
	bad(c.BasicConstraintsValid && c.IsCA == p.isCA, "CA bit %v", c.IsCA)
	bad(!p.isCA || c.MaxPathLen == 0 && c.MaxPathLenZero, "path length %d", c.MaxPathLen)
	allowed := map[string]bool{ // whether critical
		"2.5.29.14": false, "2.5.29.15": true, "2.5.29.19": true, "2.5.29.31": false, "2.5.29.35": false, "1.3.6.1.5.5.7.1.1": false,
		"2.5.29.17": len(c.Subject.Names) == 0,
	}
	if len(p.ekus) > 0 {
		allowed["2.5.29.37"] = false
	}
	var ekus []string
	names := []string(nil)
	for _, e := range c.Extensions {
		critical, known := allowed[e.Id.String()]
		bad(known && critical == e.Critical, "extension %s, critical %v", e.Id, e.Critical)
		switch e.Id.String() {
		case "2.5.29.37":
			var oids []asn1.ObjectIdentifier
			rest, err := asn1.Unmarshal(e.Value, &oids)
			bad(err == nil && len(rest) == 0, "extKeyUsage %x", e.Value)
			for _, oid := range oids {
				ekus = append(ekus, oid.String())
			}
		case "2.5.29.17":
			names = judgeNames(p, e.Value, bad)
		}
	}
	bad(slices.Equal(ekus, p.ekus), "purposes %s", ekus)

	// Life. notAfter is the last second, and the clock has moved on since the request.
	bad(!c.NotAfter.Before(c.NotBefore), "ends %s, before it begins", c.NotAfter)
	bad(c.NotAfter.Before(time.Now().Add(p.life)), "ends %s", c.NotAfter)
	bad(!c.NotBefore.Before(before.Add(-p.backdate-time.Second)), "begins %s", c.NotBefore)
	bad(!c.NotAfter.After(parent.NotAfter) && !c.NotBefore.Before(parent.NotBefore), "outlives its issuer")

	// Names.
	bad(len(c.Subject.Names)+len(names) > 0, "no name")
	for _, a := range c.Subject.Names {
		values, ok := p.subject[a.Type.String()]
		text, isText := a.Value.(string)
		bad(ok && isText && text != "" && (len(values) == 0 || slices.Contains(values, text)), "%s=%v in the subject", a.Type, a.Value)
		bad(anyText.MatchString(text), "%q in the subject", text)
		if a.Type.String() == "1.2.840.113549.1.9.1" {
			bad(slices.Contains(c.EmailAddresses, text), "emailAddress %q is no alternative name", text)
		}
	}
	bad(p.needs(c, names), "lacks what the profile needs")
}

func judgeNames(p *policy, value []byte, bad func(bool, string, ...any)) (names []string) {
	input := cryptobyte.String(value)
	var content cryptobyte.String
	bad(input.ReadASN1(&content, cbasn1.SEQUENCE) && input.Empty() && !content.Empty(), "subjectAltName %x", value)
	matches := func(r *regexp.Regexp, text string) bool { return r != nil && r.MatchString(text) }
	for !content.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !content.ReadAnyASN1(&name, &tag) {
			bad(false, "subjectAltName %x", value)
			return names
		}
		text := string(name)
		names = append(names, text)
		switch tag &^ 0xa0 {
		case 0:
			judgeOtherName(p, name, bad)
		case 1:
			bad(matches(p.email, text), "email address %q", text)
		case 2:
			bad(matches(p.dns, text) && len(text) <= 253, "DNS name %q", text)
		case 6:
			_, err := url.Parse(text)
			bad(err == nil && matches(p.uri, text), "URI %q", text)
		case 7:
			bad((p.anyIP || p.ip != nil && p.ip.Contains(net.IP(name))) && (len(name) == 4 || len(name) == 16 && net.IP(name).To4() == nil), "IP address %v", net.IP(name))
		default:
			bad(false, "a name of the kind %d", tag&^0xa0)
		}
	}
	return names
}

func judgeOtherName(p *policy, name cryptobyte.String, bad func(bool, string, ...any)) {
	var oid asn1.ObjectIdentifier
	var value, content, serial cryptobyte.String
	bad(name.ReadASN1ObjectIdentifier(&oid) && name.ReadASN1(&value, cbasn1.Tag(0).ContextSpecific().Constructed()) && name.Empty(), "otherName")
	switch oid.String() {
	case "1.3.6.1.4.1.311.20.2.3":
		bad(value.ReadASN1(&content, cbasn1.UTF8String) && value.Empty() && p.upn != nil && p.upn.Match(content) && bytes.Count(content, []byte("@")) == 1, "UPN %q", content)
	case "1.3.6.1.5.5.7.8.4":
		ok := value.ReadASN1(&content, cbasn1.SEQUENCE) && value.Empty() && content.ReadASN1ObjectIdentifier(&oid) && content.ReadASN1(&serial, cbasn1.OCTET_STRING) && content.Empty()
		bad(ok && p.modules != nil && p.modules.MatchString(oid.String()+"/"+string(serial)), "hardware module name %s/%q", oid, serial)
	default:
		bad(false, "otherName %s", oid)
	}
}
