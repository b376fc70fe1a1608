package rest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

var (
	requests = flag.Int("requests", 0, "how many requests TestConformance makes for each operation and role; 0 means a few")
	seed     = flag.Uint64("seed", 1, "of TestConformance")
)

// document is the OpenAPI description, as far as requests are made of it.
type document struct {
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]schema
		SecuritySchemes map[string]any `yaml:"securitySchemes"`
	}
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Security    []map[string][]string
	Parameters  []struct {
		Name, In string
		Required bool
		Schema   schema
	}
	RequestBody *struct {
		Content map[string]struct{ Schema schema }
	} `yaml:"requestBody"`
	Responses map[string]struct {
		Content map[string]struct{ Schema schema }
	}
}

// schema is a JSON Schema. Its values are those of the YAML document.
type schema map[string]any

func (d *document) resolve(s schema) schema {
	for s["$ref"] != nil {
		s = d.Components.Schemas[strings.TrimPrefix(s["$ref"].(string), "#/components/schemas/")]
	}
	return s
}

func sub(v any) schema {
	m, _ := v.(schema)
	if m == nil {
		other, _ := v.(map[string]any)
		m = other
	}
	return m
}

// types returns the types that a schema allows; none means any.
func (s schema) types() []string {
	switch t := s["type"].(type) {
	case string:
		return []string{t}
	case []any:
		var out []string
		for _, v := range t {
			out = append(out, v.(string))
		}
		return out
	}
	return nil
}

func (s schema) number(key string) (float64, bool) {
	switch n := s[key].(type) {
	case int:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// problems says where a JSON value is not what the schema describes.
func (d *document) problems(at string, s schema, v any) (out []string) {
	s = d.resolve(s)
	wrong := func(format string, args ...any) { out = append(out, at+": "+fmt.Sprintf(format, args...)) }
	kind := map[bool]string{true: "integer", false: "number"}
	name := "null"
	switch v := v.(type) {
	case bool:
		name = "boolean"
	case string:
		name = "string"
	case json.Number:
		_, err := v.Int64()
		name = kind[err == nil]
	case []any:
		name = "array"
	case map[string]any:
		name = "object"
	}
	if types := s.types(); len(types) > 0 && !slices.Contains(types, name) && !(name == "integer" && slices.Contains(types, "number")) {
		wrong("%s, want %s", name, types)
		return out
	}
	if allowed, ok := s["enum"].([]any); ok && !slices.Contains(allowed, v) {
		wrong("%v is none of %v", v, allowed)
	}
	switch v := v.(type) {
	case string:
		if s["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
				wrong("%q is no date-time", v)
			}
		}
		if most, ok := s.number("maxLength"); ok && utf8.RuneCountInString(v) > int(most) {
			wrong("%d characters, want at most %v", utf8.RuneCountInString(v), most)
		}
	case []any:
		for i, e := range v {
			out = append(out, d.problems(fmt.Sprintf("%s[%d]", at, i), sub(s["items"]), e)...)
		}
	case map[string]any:
		properties := sub(s["properties"])
		required, _ := s["required"].([]any)
		for _, r := range required {
			if _, ok := v[r.(string)]; !ok {
				wrong("%s is missing", r)
			}
		}
		for key, e := range v {
			switch p, ok := properties[key]; {
			case ok:
				out = append(out, d.problems(at+"."+key, sub(p), e)...)
			case s["additionalProperties"] == false:
				wrong("%s is not in the description", key)
			default:
				if more := sub(s["additionalProperties"]); more != nil {
					out = append(out, d.problems(at+"."+key, more, e)...)
				}
			}
		}
	}
	return out
}

// generator makes requests.
type generator struct {
	*mathrand.Rand
	doc *document
	// known are values that mean something to the server, by the name of the parameter or property; answers add to them.
	known map[string][]any
}

// nasty are texts that programs stumble over.
var nasty = []string{
	"", " ", "\x00", "a\x00b", "\xff\xfe", "é", "ДОМ", "İ", "\u202e", "😀", "%", "%%", "_", "\\", "'", `"`, "' OR 1=1 --", "$1", "{}", "null", "../../etc/passwd",
	"..", ".", "/", "//", "a/b", "a b", "a,b", ",", "*", "?", "#", "&", "=", "+", "-1", "0", "1e9", "9223372036854775807", "9223372036854775808", "1.5", "NaN",
	"0x10", "true", "\n", "\r\nX: y", "\t", "<script>", "${x}", "{{.}}", "CN=", "CN=a,", "CN=a+CN=b", `CN=\`, "DNS:", "DNS:*", "IP:1", "URI:", "email:@", "UPN:",
	"HMN:1.2/3", "DNS:a..b", "2026-13-45T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "2026-01-01", "99999999d", "1ns", "-5h",
	"300000000000000000000y", strings.Repeat("a", 63), strings.Repeat("a", 300), strings.Repeat("ab", 32), strings.Repeat("AB:", 31) + "AB", strings.Repeat("0", 40),
	strings.Repeat("f", 40), strings.Repeat("9", 400), strings.Repeat("é", 3000),
}

func pick[T any](g *generator, of []T) T { return of[g.IntN(len(of))] }

// value makes a value of the schema, most of the time one that the schema allows.
func (g *generator) value(name string, s schema, wild int) any {
	if ref, ok := s["$ref"].(string); ok {
		if known := g.known[strings.TrimPrefix(ref, "#/components/schemas/")]; len(known) > 0 && g.IntN(3) > 0 {
			return g.twist(pick(g, known), wild)
		}
	}
	s = g.doc.resolve(s)
	if g.IntN(100) < wild {
		return pick(g, []any{nil, true, -1, 0, 1.5, 1e300, json.Number("123456789012345678901234567890"), pick(g, nasty), []any{}, []any{nil}, map[string]any{}, map[string]any{"a": nil}})
	}
	if known := g.known[name]; len(known) > 0 && g.IntN(4) > 0 && !slices.Contains(s.types(), "array") { // its elements have the name
		return pick(g, known)
	}
	if allowed, ok := s["enum"].([]any); ok && g.IntN(5) > 0 {
		return pick(g, allowed)
	}
	kinds := s.types()
	kind := "object"
	if len(kinds) > 0 {
		kind = pick(g, kinds)
	}
	switch kind {
	case "null":
		return nil
	case "boolean":
		return g.IntN(2) == 0
	case "integer", "number":
		choices := []any{0, 1, 2, 7, 1000}
		for _, bound := range []string{"minimum", "maximum"} {
			if b, ok := s.number(bound); ok {
				choices = append(choices, int64(b), int64(b)-1, int64(b)+1)
			}
		}
		return pick(g, choices)
	case "string":
		if s["format"] == "date-time" && g.IntN(5) > 0 {
			return time.Now().Add(time.Duration(g.IntN(400*24)-100*24) * time.Hour).UTC().Format(time.RFC3339)
		}
		if most, ok := s.number("maxLength"); ok && g.IntN(6) == 0 {
			return strings.Repeat(pick(g, []string{"a", "é", "1", "\\"}), int(most)+g.IntN(2))
		}
		return pick(g, nasty)
	case "array":
		list := []any{}
		for range g.IntN(4) {
			list = append(list, g.value(name, sub(s["items"]), wild/2))
		}
		if most, ok := s.number("maxItems"); ok && g.IntN(20) == 0 {
			one := g.value(name, sub(s["items"]), 0)
			for range int(most) + g.IntN(2) {
				list = append(list, one)
			}
		}
		return list
	}
	object := map[string]any{}
	required, _ := s["required"].([]any)
	properties := sub(s["properties"])
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		if needed := slices.Contains(required, any(key)); needed && g.IntN(100) >= wild || !needed && g.IntN(7-min(wild/4, 4)) == 0 {
			object[key] = g.value(key, sub(properties[key]), wild)
		}
	}
	if g.IntN(100) < wild {
		object[pick(g, nasty)] = pick(g, nasty)
	}
	return object
}

// twist returns a copy of a value with some of its parts replaced.
func (g *generator) twist(v any, wild int) any {
	if g.IntN(100) < wild/2 {
		return g.value("", schema{"type": []any{"string", "integer", "object", "array", "null"}}, 50)
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out[key] = g.twist(v[key], wild)
		}
		if g.IntN(100) < wild {
			out[pick(g, nasty)] = pick(g, nasty)
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, g.twist(e, wild))
		}
		return out
	}
	return v
}

// body makes a request's body.
func (g *generator) body(s schema, wild int) []byte {
	b, err := json.Marshal(g.value("", s, wild))
	if err != nil {
		panic(err) // every value is one of JSON
	}
	if wild == 0 || g.IntN(4) > 0 {
		return b
	}
	switch g.IntN(9) {
	case 0:
		return b[:g.IntN(len(b)+1)]
	case 1:
		b[g.IntN(len(b))] ^= 1 << g.IntN(8)
		return b
	case 2:
		return bytes.Repeat([]byte("["), 20_000)
	case 3:
		return append([]byte("\xef\xbb\xbf"), b...)
	case 4:
		return append(b, b...)
	case 5:
		return []byte(pick(g, nasty))
	case 6:
		return append([]byte(`{"name":"a","name":"b","profile":"server","Profile":"client",`), b[1:]...)
	case 7:
		return []byte(`"` + strings.Repeat("a", 256<<10) + `"`)
	}
	return []byte("null")
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, text(e))
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v)
}

// request makes one.
func (g *generator) request(ctx context.Context, base, method, path string, op operation, wild int) (*http.Request, []byte, error) {
	query, header := url.Values{}, http.Header{}
	for _, p := range op.Parameters {
		if !p.Required && g.IntN(3) > 0 {
			continue
		}
		name := p.Name
		if special := op.OperationID + "." + name; g.known[special] != nil {
			name = special
		}
		v := text(g.value(name, p.Schema, wild))
		switch p.In {
		case "path":
			if v == "" || v == "." || v == ".." { // another address
				v = "-"
			}
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(v))
		case "query":
			query.Add(p.Name, v)
			if g.IntN(100) < wild {
				query.Add(p.Name, text(g.value(p.Name, p.Schema, wild)))
			}
		case "header":
			header.Set(p.Name, strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f || r == utf8.RuneError {
					return -1 // no program sends it
				}
				return r
			}, v))
		}
	}
	if g.IntN(100) < wild {
		query.Add(pick(g, nasty), pick(g, nasty))
	}
	address := base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var body []byte
	var reader io.Reader
	contentType := "application/json"
	if op.RequestBody != nil {
		body = g.body(op.RequestBody.Content[contentType].Schema, wild)
		reader = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, strings.ToUpper(method), address, reader)
	if err != nil {
		return nil, nil, err
	}
	r.Header = header
	if reader != nil {
		r.Header.Set("Content-Type", contentType)
		if g.IntN(100) < wild {
			r.Header.Set("Content-Type", pick(g, []string{"text/plain", "application/xml", "application/json; charset=latin1", "x", "", "application/cbor", "multipart/form-data"}))
		}
	}
	return r, body, nil
}

// learn keeps what an answer names, so that later requests meet what is there.
func (g *generator) learn(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			g.learn(e)
		}
	case map[string]any:
		for key, e := range v {
			name := map[string]string{"id": "id", "serial": "serial", "next": "cursor", "version": "version", "spki_sha256": "spki_sha256", "device": "device"}[key]
			if name == "id" {
				g.keep("fingerprint", e)
			}
			if name != "" {
				g.keep(name, e)
			}
			g.learn(e)
		}
	}
}

func (g *generator) keep(name string, v any) {
	if n, ok := v.(json.Number); ok {
		v = n.String()
	}
	const most = 30
	if len(g.known[name]) < most {
		g.known[name] = append(g.known[name], v)
	} else {
		g.known[name][g.IntN(most)] = v
	}
}

// TestConformance sends requests that the OpenAPI document allows, and others that it almost allows, to a server: for
// every operation, as everybody. The answer is never the server's own fault, and always one that the document has: its
// status, its media type, and the schema of its JSON.
func TestConformance(t *testing.T) {
	r := newRig(t)
	var doc document
	decodeYAML(t, r.doc, &doc)
	n := *requests
	if n == 0 {
		n = map[bool]int{false: 12, true: 3}[raceDetector || testing.Short()]
	}
	g := &generator{Rand: mathrand.New(mathrand.NewPCG(*seed, 0)), doc: &doc}

	server := httptest.NewUnstartedServer(r.handler)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	base := server.URL + Root

	first := r.issue("enroller", "first.example.com")
	g.known = map[string][]any{
		"issuer": {"issuing", "root", "issuing"}, "issuers": {"issuing"}, "profile": {"client", "server", "device", "fuzz"}, "profiles": {"client"}, "id": {first.ID},
		"fingerprint": {first.ID}, "serial": {first.Serial}, "version": {"1", "2"}, "csr": {newCSR(t, "a.example.com"), newCSR(t, "Ada"), newCSR(t, "")},
		"subject": {"CN=a.example.com", "CN=Ada,O=Example"}, "sans": {"DNS:a.example.com", "email:ada@example.com", "URI:spiffe://example.com/a", "IP:192.0.2.1"},
		"validity": {"1d", "12h", "90d"}, "password": {"correct horse battery"}, "If-Match": {`"1"`, `"2"`, "*"}, "If-None-Match": {"*"}, "after": {0, 1, 1_000_000},
		"name": {"fuzz", "spare-1", "spare-2", "spare-3"}, "kind": {"server", "client", "device"}, "checkpoint": {"1:" + strings.Repeat("ab", 32)},
		"action": {"certificate.", "certificate.issue"}, "actor": {"token:admin"}, "requester": {"token:enroller"}, "protocol": {"rest"},
	}
	for _, name := range []string{"spare-1", "spare-2", "spare-3"} { // those that may be revoked; the test uses the others
		r.newToken(name, map[string]any{"role": "auditor"})
	}
	g.known["putProfile.profile"] = []any{"fuzz", "fuzz", "other"}
	g.known["RevokeChallengesInputBody"] = []any{map[string]any{"batch": "none"}} // or none is left for the test
	g.known["IssueWithKeyInputBody"] = []any{
		map[string]any{"profile": "client", "subject": "CN=Ada"}, map[string]any{"profile": "client", "subject": "CN=Ada", "format": "pkcs12", "key_algorithm": "ed25519"},
	}
	r.idle()
	plan := func(path string, body map[string]any) map[string]any {
		var p RevocationPlan
		r.must("administrator", "POST", path, body, &p)
		body["confirm"] = p.Confirm
		return body
	}
	all := map[string]any{"query": map[string]any{"profile": "client", "status": []string{"valid", "hold", "revoked"}}, "reason": "superseded"}
	g.known["RevocationInputBody"] = []any{plan("/revocations/dry-run", all)}
	key := plan("/blocked-keys/dry-run", map[string]any{"spki_sha256": strings.Repeat("ef", 32)})
	g.known["BlockKeyInputBody"] = []any{key}
	g.known["spki_sha256"] = []any{first.SPKISHA256}
	compromised := r.issue("operator", "compromised.example.com")
	r.must("operator", "POST", "/certificates/"+compromised.ID+"/revoke", map[string]any{"reason": "keyCompromise"}, nil)
	g.known["unblockKey.spki_sha256"] = []any{compromised.SPKISHA256}
	for _, op := range []string{"get", "pause", "resume", "cancel"} {
		var c RevocationCampaign
		r.must("administrator", "POST", "/revocations", g.known["RevocationInputBody"][0], &c)
		g.known[op+"Revocation.id"] = []any{c.ID}
		if op == "resume" {
			r.must("administrator", "POST", "/revocations/"+c.ID+"/pause", nil, nil)
		}
	}
	if w := r.send("administrator", "PUT", "/issuers/issuing/settings", `{"crl":{"nextUpdate":"3d"}}`, "If-Match", "*"); w.Code != http.StatusOK {
		t.Fatalf("settings: %d %s", w.Code, w.Body)
	}
	g.known["getIssuerSettingsVersion.issuer"], g.known["getIssuerSettingsVersion.version"] = []any{"issuing"}, []any{1}
	g.known["revokeToken.id"] = []any{"spare-1", "spare-2", "spare-3"}
	var configs []any
	for _, config := range []string{
		`{"name": "fuzz", "kind": "client"}`,
		`{"name": "fuzz", "kind": "server", "description": "of a test", "sans": {"dns": {"suffixes": ["example.com"]}}, "validity": {"default": "30d", "max": "90d"}}`,
		`{"name": "fuzz", "kind": "device", "disabled": true}`,
	} {
		var v any
		if err := json.Unmarshal([]byte(config), &v); err != nil {
			t.Fatal(err)
		}
		configs = append(configs, v)
	}
	g.known["ProfileConfig"] = configs
	g.known["point"] = []any{"default"}
	r.must("administrator", "PUT", "/scep/points/hooked", map[string]any{"settings": map[string]any{"webhook": map[string]any{"url": "https://hook.example.com", "notify": []any{"success"}}}}, nil)
	g.known["newWebhookSecret.point"] = []any{"hooked"}
	g.known["WebhookSecretInputBody"] = []any{map[string]any{}, map[string]any{"overlap": "1d"}}
	g.known["putEnrollmentPoint.point"] = []any{"fuzz-1", "fuzz-2", "fuzz-3"}
	g.known["PutPointInputBody"] = []any{
		map[string]any{"settings": map[string]any{"approval": true}}, map[string]any{"settings": map[string]any{"profile": "device"}, "static_challenge": "a long challenge"},
	}
	waits := pki.Enrollment{
		ID: "WAITING", Point: "default", Version: 1, State: pki.EnrollmentPending, Subject: "CN=device", Profile: "device",
		CreatedAt: r.config.Now(), UpdatedAt: r.config.Now(), ExpiresAt: r.config.Now().Add(time.Hour),
	}
	if err := r.store.PutEnrollment(t.Context(), store.EnrollmentChange{Enrollment: waits, Record: audit.Record{Time: r.config.Now(), Action: audit.ActionPending}}); err != nil {
		t.Fatal(err)
	}
	g.known["DecideEnrollmentsInputBody"] = []any{
		map[string]any{"decision": "approve", "ids": []any{waits.ID}}, map[string]any{"decision": "deny", "ids": []any{"NOTHING"}, "reason": "not one of ours"},
	}
	g.known["approveEnrollment.id"], g.known["denyEnrollment.id"] = []any{waits.ID}, []any{waits.ID}
	whoever := map[string]*http.Client{}
	for _, who := range []string{"", "auditor", "enroller", "operator", "administrator"} {
		whoever[who] = newClient(server, nil)
	}
	seen := map[string]map[int]int{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			op := doc.Paths[path][method]
			seen[op.OperationID] = map[int]int{}
			for _, who := range []string{"", "auditor", "enroller", "operator", "administrator", "holder"} {
				client := whoever[who]
				if who == "holder" {
					client = newClient(server, r.holder())
				}
				for i := range n {
					wild := []int{0, 8, 30}[i%3]
					status := g.try(t, r, client, who, base, method, path, op, wild)
					seen[op.OperationID][status]++
				}
			}
			// A document that no request is granted by would tell nothing.
			for range 300 {
				if good(seen[op.OperationID]) {
					break
				}
				client, who := whoever["administrator"], "administrator"
				if op.Security != nil && op.Security[0]["certificate"] != nil {
					client, who = newClient(server, r.holder()), "holder"
				}
				seen[op.OperationID][g.try(t, r, client, who, base, method, path, op, 0)]++
			}
			if !good(seen[op.OperationID]) {
				t.Errorf("no request of %s was granted: the generator has to know more of what it wants", op.OperationID)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		t.Log(id, seen[id])
	}
}

// good tells whether any of the statuses is that of a request that was granted.
func good(statuses map[int]int) bool {
	for status := range statuses {
		if status >= 200 && status < 300 {
			return true
		}
	}
	return false
}

func newClient(server *httptest.Server, certificate *tls.Certificate) *http.Client {
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, DialContext: (&net.Dialer{}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// holder returns a client certificate and its key.
func (r *rig) holder() *tls.Certificate {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		r.t.Fatal(err)
	}
	var c Certificate
	r.must("operator", "POST", "/certificates", map[string]any{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), "profile": "client", "subject": "CN=holder",
	}, &c)
	block, _ := pem.Decode([]byte(c.PEM))
	return &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// anyMedia takes the parameters off a Content-Type.
var anyMedia = regexp.MustCompile(`^[a-z]+/[a-z0-9.+-]+$`)

// try sends a request, judges the answer and returns its status.
func (g *generator) try(t *testing.T, r *rig, client *http.Client, who, base, method, path string, op operation, wild int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	request, body, err := g.request(ctx, base, method, path, op, wild)
	if err != nil {
		return 0 // no request at all
	}
	if token := r.tokens[who]; token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	what := fmt.Sprintf("%s %s as %q, headers %v, body %.600q (-seed %d)", request.Method, request.URL.RequestURI(), who, request.Header, body, *seed)
	what = regexp.MustCompile(`cwt_[A-Za-z0-9_-]+`).ReplaceAllString(what, "cwt_...")
	answer, err := client.Do(request)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return 0
	}
	defer answer.Body.Close()
	var content []byte
	if op.OperationID != "followAudit" || answer.StatusCode != http.StatusOK { // that one has no end
		if content, err = io.ReadAll(answer.Body); err != nil {
			t.Errorf("%s: reading the answer: %v", what, err)
		}
	}
	fail := func(format string, args ...any) {
		t.Errorf("%s\n\tanswer: %d %.600s\n\t"+format, append([]any{what, answer.StatusCode, content}, args...)...)
	}
	if answer.StatusCode >= 500 {
		fail("the server's fault")
	}
	documented, ok := op.Responses[strconv.Itoa(answer.StatusCode)]
	if !ok {
		fail("the document has no such status")
		return answer.StatusCode
	}
	media, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if len(documented.Content) == 0 {
		if len(content) > 0 {
			fail("the document has no content for it")
		}
		return answer.StatusCode
	}
	described, ok := documented.Content[media]
	if err != nil || !ok || !anyMedia.MatchString(media) {
		fail("Content-Type %q is none of %v", answer.Header.Get("Content-Type"), slices.Sorted(maps.Keys(documented.Content)))
		return answer.StatusCode
	}
	if !strings.HasSuffix(media, "json") {
		return answer.StatusCode
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		fail("%v", err)
		return answer.StatusCode
	}
	for _, problem := range g.doc.problems("answer", described.Schema, value) {
		fail("%s", problem)
	}
	if object, ok := value.(map[string]any); ok && answer.StatusCode >= 400 && object["status"] != json.Number(strconv.Itoa(answer.StatusCode)) {
		fail("the problem document has another status")
	}
	if answer.StatusCode < 300 && op.OperationID != "listTokens" && op.OperationID != "createToken" {
		g.learn(value)
	}
	return answer.StatusCode
}
