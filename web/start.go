package web

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// StartPage is all that the start page shows. Texts may hold anything: they are shown escaped. Fields that end in
// Path are addresses on the server that serves the page, beginning with a slash; an empty one leaves its link out.
type StartPage struct {
	Name         string // the CA's name for people; empty: "Certwright"
	Organization string // may be empty; not shown when it is the Name
	Version      string // of the software, such as "1.4.0"; may be empty

	// Now is the time the page speaks of: days left, ages, what is stale. Required.
	Now time.Time
	// TLS says that the page goes out over HTTPS. It decides how the visitor is warned, and whether the commands carry
	// the root's fingerprint or ask for it: over plain HTTP a forged page would bring its own.
	TLS bool
	// HTTPURL is the plain-HTTP listener as clients reach it, scheme and authority only: "http://ca.example.org:8080".
	// Required. Commands fetch from it, since the root is what they do not trust yet. Take it from the configuration,
	// never from the request's Host header.
	HTTPURL string
	// HTTPSURL is the HTTPS listener in the same form; empty when there is none.
	HTTPSURL string

	// Certificates are the CA's own, in the order to show them. The commands are for the first usable root.
	Certificates []Certificate
	RootsPath    string  // roots.pem: the trust anchors
	ClientCAPath string  // client-ca.pem: roots and live intermediates
	Chains       []Chain // those of roots are not shown: they are no chains to send
	CRLs         []CRL
	Responders   []Responder // the example asks the first one of an issuing CA
	// OpenAPIPath is the REST API's description on the HTTPS listener: "/api/v1/openapi.yaml".
	OpenAPIPath string
}

// Role says what a CA certificate is for.
type Role string

// The roles of CA certificates.
const (
	RoleRoot    Role = "root"
	RoleIssuing Role = "issuing"
)

// Certificate is one of the CA's own certificates.
type Certificate struct {
	Role               Role
	Issuer             string    // the issuer's name on the command line: certwright issuer show NAME
	Subject            string    // distinguished name
	IssuedBy           string    // distinguished name; empty, or the subject, when self-signed
	NotBefore          time.Time // the validity, both ends inclusive
	NotAfter           time.Time // in the year 9999: no end (RFC 5280, Section 4.1.2.5)
	Revoked            time.Time // zero: not revoked
	KeyAlgorithm       string    // "p-384", shown as "ECDSA P-384"; other texts are shown as they are
	SignatureAlgorithm string    // "ECDSA with SHA-384"; may be empty
	Serial             string    // hexadecimal
	SHA256             [32]byte  // of the DER; zero is refused
	PEMPath            string
	DERPath            string // a root without it gets no trust commands
}

// Chain is what a server configured with certificates of one issuer downloads.
type Chain struct {
	Issuer  string // name, as in Certificate.Issuer
	PEMPath string // the issuer's certificate and those above it, the root left out
	CRLPath string // PEM bundle of the CRLs of every CA in the chain
}

// CRL is one published certificate revocation list.
type CRL struct {
	Issuer     string    // name, as in Certificate.Issuer
	Scope      string    // "full", "shard 3"; may be empty
	Number     string    // decimal: up to 20 octets (RFC 5280, Section 5.2.3)
	ThisUpdate time.Time // zero: none was published yet
	CreatedAt  time.Time // when it was made, since ThisUpdate may lie before; zero: at ThisUpdate
	NextUpdate time.Time
	Entries    int
	SizeBytes  int    // of the DER; 0 is not shown
	URL        string // as certificates carry it; http or https
	DERPath    string
	PEMPath    string
}

// Responder is an OCSP address as certificates carry it.
type Responder struct {
	Issuer string // name, as in Certificate.Issuer
	URL    string // http or https
}

// RenderStart writes the start page. It fails, and writes nothing, when Now or HTTPURL is missing, when an address is
// not of the form its field asks for, or when a certificate has no fingerprint.
func RenderStart(w io.Writer, p StartPage) error {
	v, err := newStartView(p)
	if err != nil {
		return fmt.Errorf("rendering the start page: %w", err)
	}
	return render(w, "start.html", v)
}

// The views are what the templates see: every text already visible, every address already checked, every state
// already decided.
type startView struct {
	Name, Organization, Version string
	Now                         time.Time
	TLS                         bool
	HTTPURL, HTTPSURL           string
	Alerts                      []alert
	Certificates                []certificateView
	RootsPath, ClientCAPath     string
	Chains                      []Chain
	CRLs                        []crlView
	Responders                  []Responder
	Ask                         *Responder // the one to try; nil: none of an issuing CA
	OpenAPI                     string
	Root                        *certificateView // nil: no root to trust
	OtherRoots                  []certificateView
	Trust                       *trustView
}

type alert struct {
	Level, Text, Href string
}

// A state is a word and how bad it is: "ok", "warn" or "bad", the style sheet's classes.
type state struct {
	Level, Text string
}

type certificateView struct {
	Certificate
	ID          string
	Title       string // the subject's common name, else all of it
	State       state
	Left        string // how long it is still valid, or since when it is not
	NoEnd       bool
	SelfSigned  bool
	Fingerprint []string
	ShowCommand string // certwright issuer show NAME
}

type crlView struct {
	CRL
	ID    string
	Count string // Entries, readable
	State state
	Age   string // since it was made
	Next  string
	Size  string
}

// trustView is what the commands need. Each field is safe to stand in a command as it is.
type trustView struct {
	TLS     bool
	File    string // without its ending
	URL     string // of the DER, plain HTTP
	Hex     string // the root's SHA-256, lower case
	TestURL string // an HTTPS address to try
}

func newStartView(p StartPage) (*startView, error) {
	if p.Now.IsZero() {
		return nil, errors.New("the page has no time: Now is zero")
	}
	if err := checkBase("HTTPURL", p.HTTPURL, "http"); err != nil {
		return nil, err
	}
	if p.HTTPSURL != "" {
		if err := checkBase("HTTPSURL", p.HTTPSURL, "https"); err != nil {
			return nil, err
		}
	}
	v := &startView{
		Name: visible(p.Name), Organization: visible(p.Organization), Version: visible(p.Version),
		Now: p.Now, TLS: p.TLS, HTTPURL: p.HTTPURL, HTTPSURL: p.HTTPSURL,
		RootsPath: p.RootsPath, ClientCAPath: p.ClientCAPath,
	}
	if v.Name == "" {
		v.Name = "Certwright"
	}
	if strings.EqualFold(v.Organization, v.Name) {
		v.Organization = ""
	}
	if err := checkPaths(p.RootsPath, p.ClientCAPath, p.OpenAPIPath); err != nil {
		return nil, err
	}
	switch {
	case p.OpenAPIPath == "":
	case p.TLS:
		v.OpenAPI = p.OpenAPIPath
	case p.HTTPSURL != "":
		v.OpenAPI = p.HTTPSURL + p.OpenAPIPath
	}
	roles := make(map[string]Role)
	for i, c := range p.Certificates {
		roles[c.Issuer] = c.Role
		cv, err := newCertificateView(c, p.Now)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		cv.ID = fmt.Sprintf("certificate-%d", i+1)
		v.Certificates = append(v.Certificates, cv)
		if cv.State.Level != "ok" {
			v.Alerts = append(v.Alerts, alert{cv.State.Level, cv.Title + ": " + cv.State.Text + ", " + cv.Left, "#" + cv.ID})
		}
	}
	for _, c := range p.Chains {
		if err := checkPaths(c.PEMPath, c.CRLPath); err != nil {
			return nil, err
		}
		if roles[c.Issuer] == RoleRoot {
			continue
		}
		c.Issuer = visible(c.Issuer)
		v.Chains = append(v.Chains, c)
	}
	for i, c := range p.CRLs {
		cv, err := newCRLView(c, p.Now)
		if err != nil {
			return nil, fmt.Errorf("CRL %d: %w", i+1, err)
		}
		cv.ID = fmt.Sprintf("crl-%d", i+1)
		v.CRLs = append(v.CRLs, cv)
		if cv.State.Level != "ok" {
			text := "CRL of " + cv.Issuer
			if cv.Scope != "" {
				text += ", " + cv.Scope
			}
			v.Alerts = append(v.Alerts, alert{cv.State.Level, text + ": " + cv.State.Text, "#" + cv.ID})
		}
	}
	for _, r := range p.Responders {
		if err := checkURL(r.URL); err != nil {
			return nil, err
		}
		issuing := roles[r.Issuer] == RoleIssuing
		r.Issuer = visible(r.Issuer)
		v.Responders = append(v.Responders, r)
		if issuing && v.Ask == nil {
			v.Ask = &r
		}
	}
	v.chooseRoot(p)
	return v, nil
}

// chooseRoot takes the first root that can be fetched and is good now; others are named so that none is forgotten
// during a rollover.
func (v *startView) chooseRoot(p StartPage) {
	for i := range v.Certificates {
		c := &v.Certificates[i]
		if c.Role != RoleRoot || c.DERPath == "" || c.State.Level == "bad" {
			continue
		}
		if v.Root != nil {
			v.OtherRoots = append(v.OtherRoots, *c)
			continue
		}
		v.Root = c
		file := slug(p.Name)
		if file == "" {
			file = "certwright"
		}
		if !strings.HasSuffix(file, "root") {
			file += "-root"
		}
		v.Trust = &trustView{
			TLS: p.TLS, File: file, URL: p.HTTPURL + c.DERPath,
			Hex:     strings.ToLower(strings.ReplaceAll(strings.Join(c.Fingerprint, ""), ":", "")),
			TestURL: "https://server.example",
		}
		if p.HTTPSURL != "" {
			v.Trust.TestURL = p.HTTPSURL + "/"
		}
	}
}

func newCertificateView(c Certificate, now time.Time) (certificateView, error) {
	if c.SHA256 == [32]byte{} {
		return certificateView{}, errors.New("SHA256 is zero")
	}
	if c.Role != RoleRoot && c.Role != RoleIssuing {
		return certificateView{}, fmt.Errorf("unknown role %q", c.Role)
	}
	if err := checkPaths(c.PEMPath, c.DERPath); err != nil {
		return certificateView{}, err
	}
	v := certificateView{
		Fingerprint: fingerprint(c.SHA256),
		SelfSigned:  c.IssuedBy == "" || c.IssuedBy == c.Subject,
		NoEnd:       c.NotAfter.UTC().Year() >= 9999,
	}
	c.Issuer, c.Subject, c.IssuedBy = visible(c.Issuer), visible(c.Subject), visible(c.IssuedBy)
	c.KeyAlgorithm, c.SignatureAlgorithm = visible(keyName(c.KeyAlgorithm)), visible(c.SignatureAlgorithm)
	c.Serial = visible(c.Serial)
	v.Certificate = c
	v.Title = commonName(c.Subject)
	v.State, v.Left = validity(c, now)
	if c.Issuer != "" {
		v.ShowCommand = "certwright issuer show " + shellWord(c.Issuer)
	} else {
		v.ShowCommand = "certwright issuer list"
	}
	return v, nil
}

// commonName finds the CN in a distinguished name as crypto/x509/pkix and RFC 4514 write it, for a heading only: the
// whole name is always shown too.
func commonName(dn string) string {
	if m := commonNameRE.FindStringSubmatch(dn); m != nil {
		return strings.TrimSpace(strings.ReplaceAll(m[1], `\`, ""))
	}
	if dn == "" {
		return "Certificate without a subject"
	}
	return dn
}

var commonNameRE = regexp.MustCompile(`(?:^|[,+/]\s*)CN\s*=\s*((?:[^,+\\]|\\.)+)`)

// validity judges a certificate. One is soon to expire when a tenth of its life is left, but never earlier than 180
// days and never later than 30 days before its end, unless its whole life is shorter.
func validity(c Certificate, now time.Time) (state, string) {
	const day = 24 * 60 * 60
	left := c.NotAfter.Unix() - now.Unix()
	life := c.NotAfter.Unix() - c.NotBefore.Unix()
	soon := min(life/2, max(30*day, min(180*day, life/10)))
	switch {
	case !c.Revoked.IsZero():
		return state{"bad", "revoked"}, "since " + stamp(c.Revoked)
	case now.Before(c.NotBefore):
		return state{"warn", "not yet valid"}, "valid in " + span(c.NotBefore.Unix()-now.Unix())
	case left < 0:
		return state{"bad", "expired"}, span(-left) + " ago"
	case left < soon:
		return state{"warn", "expires soon"}, span(left) + " left"
	}
	return state{"ok", "valid"}, span(left) + " left"
}

func newCRLView(c CRL, now time.Time) (crlView, error) {
	if err := checkPaths(c.DERPath, c.PEMPath); err != nil {
		return crlView{}, err
	}
	if c.URL != "" {
		if err := checkURL(c.URL); err != nil {
			return crlView{}, err
		}
	}
	c.Issuer, c.Scope, c.Number = visible(c.Issuer), visible(c.Scope), visible(c.Number)
	v := crlView{CRL: c, Count: comma(int64(c.Entries))}
	if c.SizeBytes > 0 {
		v.Size = size(c.SizeBytes)
	}
	if c.ThisUpdate.IsZero() {
		v.State = state{"bad", "not published yet"}
		return v, nil
	}
	if c.CreatedAt.IsZero() {
		v.CreatedAt = c.ThisUpdate
	}
	made := now.Unix() - v.CreatedAt.Unix()
	age := now.Unix() - c.ThisUpdate.Unix()
	left := c.NextUpdate.Unix() - now.Unix()
	v.Age, v.Next = span(made)+" ago", "in "+span(left)
	switch {
	case made < 0:
		v.State, v.Age = state{"warn", "from the future"}, "in "+span(-made)
	case age < 0:
		v.State = state{"warn", "from the future"}
	case left < 0:
		v.State, v.Next = state{"bad", "stale"}, span(-left)+" ago"
	case left < (age+left)/4: // the last quarter: it is published many times in its life when all is well
		v.State = state{"warn", "stale soon"}
	default:
		v.State = state{"ok", "fresh"}
	}
	return v, nil
}

func size(n int) string {
	switch {
	case n < 1024:
		return fmt.Sprintf("%d bytes", n)
	case n < 1024*1024:
		return fmt.Sprintf("%.1f KiB", float64(n)/1024)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1024*1024))
}

// The alphabets of addresses. They hold nothing that a POSIX shell or PowerShell reads as more than itself between
// single quotes, and a base, which stands unquoted, nothing that a shell reads at all.
var (
	baseRE = regexp.MustCompile(`^https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)
	pathRE = regexp.MustCompile(`^/(?:[A-Za-z0-9._~%+-]+/)*[A-Za-z0-9._~%+-]*$`)
	urlRE  = regexp.MustCompile(`^https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._~%+/:?&=,;@!-]*)?$`)
)

func checkBase(field, s, scheme string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != scheme || !baseRE.MatchString(s) {
		return fmt.Errorf("%s is %q, want %s://HOST[:PORT]", field, s, scheme)
	}
	return nil
}

func checkPaths(paths ...string) error {
	for _, s := range paths {
		if s != "" && !pathRE.MatchString(s) {
			return fmt.Errorf("path is %q, want an absolute path", s)
		}
	}
	return nil
}

func checkURL(s string) error {
	if u, err := url.Parse(s); err != nil || u.Host == "" || !urlRE.MatchString(s) {
		return fmt.Errorf("address is %q, want an http or https URL", s)
	}
	return nil
}
