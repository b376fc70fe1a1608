package rest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/audit"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// fill puts n certificates into the store without signing them.
func (r *rig) fill(n int, change func(i int, c *pki.Certificate)) {
	r.t.Helper()
	issuing := r.issuerID("issuing")
	now := time.Now().UTC().Truncate(time.Microsecond)
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := worker; i < n; i += 32 {
				serial, err := pki.NewSerialNumber(rand.Reader, now.Add(time.Hour), now)
				c := pki.Certificate{
					IssuerID: issuing.IssuerID, IssuerKeyID: issuing.IssuerKeyID, Serial: serial, Subject: fmt.Sprintf("CN=filled %d", i), Profile: "client",
					ProfileVersion: 1, Requester: "token:operator", Protocol: "rest", Source: "192.0.2.1", CRLScope: pki.ScopeFull,
					NotBefore: now.Add(-time.Hour).Truncate(time.Second), NotAfter: now.Add(time.Hour).Truncate(time.Second), IssuedAt: now.Add(-time.Duration(i) * time.Millisecond),
				}
				c.DER = fmt.Appendf(nil, "certificate %s", serial)
				c.Fingerprint = fingerprint(c.DER)
				c.SPKIHash = fingerprint([]byte(c.Subject))
				if change != nil {
					change(i, &c)
				}
				if err == nil {
					err = r.store.RecordIssuance(r.t.Context(), store.Issuance{Certificate: c, Record: audit.Record{Time: now, Action: audit.ActionIssue, Actor: "test"}})
				}
				if err != nil {
					r.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// issuerID returns a certificate's references to an issuer and its key.
func (r *rig) issuerID(name string) pki.Certificate {
	r.t.Helper()
	probe := r.issue("administrator", "probe-"+name)
	f, err := pki.ParseFingerprint(probe.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := r.store.Certificate(r.t.Context(), f)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) export(who, query string) []byte {
	r.t.Helper()
	status, answer := r.call(who, "GET", "/certificates/export?"+query, nil)
	if status != http.StatusOK {
		r.t.Fatalf("export?%s as %s: %d %s", query, who, status, answer)
	}
	return answer
}

func TestExportTakesTheFiltersOfTheList(t *testing.T) {
	fields := func(of reflect.Type) map[string]reflect.StructField {
		all := map[string]reflect.StructField{}
		for _, f := range reflect.VisibleFields(of) {
			if name := f.Tag.Get("query"); name != "" {
				all[name] = f
			}
		}
		return all
	}
	list, export := fields(reflect.TypeFor[listInput]()), fields(reflect.TypeFor[exportInput]())
	for name, f := range list {
		if slices.Contains([]string{"limit", "cursor", "count"}, name) {
			continue
		}
		if e, ok := export[name]; !ok || e.Tag != f.Tag || e.Type != f.Type {
			t.Errorf("the list's filter %q is not one of the export, or another", name)
		}
	}
	if n := len(list) - 3 + 1; len(export) != n || n < 10 {
		t.Errorf("the export has %d parameters, want %d", len(export), n)
	}
	// Each arrives: a value that no filter of its kind takes is refused, or finds nothing.
	r := newRig(t)
	r.issue("operator", "someone")
	_, all := r.call("operator", "GET", "/certificates/export?format=jsonl", nil)
	for name, f := range export {
		value := "x"
		switch {
		case name == "format":
			continue
		case name == "status":
			value = "hold"
		case strings.HasSuffix(name, "_from"):
			value = "2999-01-01T00:00:00Z"
		case strings.HasSuffix(name, "_to"):
			value = "2001-01-01T00:00:00Z"
		case f.Name == "Text":
			value = "nobody-has-this"
		}
		status, answer := r.call("operator", "GET", "/certificates/export?format=jsonl&"+name+"="+value, nil)
		if status == http.StatusOK && len(answer) >= len(all) {
			t.Errorf("the filter %s of an export is dropped", name)
		}
	}
}

func TestExportIsTheList(t *testing.T) {
	r := newRig(t)
	const n = 2*exportPage + 37
	r.fill(n, nil)
	revoked := r.issue("operator", "revoked")
	r.must("operator", "POST", "/certificates/"+revoked.ID+"/revoke", map[string]any{"reason": "superseded"}, nil)

	var want []Certificate
	for cursor := ""; ; {
		var page struct {
			Certificates []Certificate
			Next         string
		}
		r.must("auditor", "GET", "/certificates?profile=client&limit=100&cursor="+cursor, nil, &page)
		want = append(want, page.Certificates...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	var got []Certificate
	for line := range bytes.Lines(r.export("auditor", "format=jsonl&profile=client")) {
		var c Certificate
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
	}
	if len(got) != n+2 || !reflect.DeepEqual(got, want) {
		t.Errorf("the export has %d certificates, the list %d, in this order: %v", len(got), len(want), reflect.DeepEqual(got, want))
	}

	rows, err := csv.NewReader(bytes.NewReader(r.export("auditor", "profile=client"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != n+3 || !slices.Equal(rows[0], csvHeading) {
		t.Fatalf("%d rows with the heading %v", len(rows), rows[0])
	}
	for i, row := range rows[1:] {
		if row[0] != want[i].ID || row[7] != want[i].Status {
			t.Fatalf("row %d is %v, want %s %s", i, row, want[i].ID, want[i].Status)
		}
	}
	if first := rows[1]; first[17] != "superseded" || first[18] == "" || first[19] != "" {
		t.Errorf("the revoked one has the row %v", first)
	}
	// Nothing matches: a heading, or nothing.
	if got := string(r.export("auditor", "text=nobody")); got != strings.Join(csvHeading, ",")+"\n" {
		t.Errorf("an empty CSV export is %q", got)
	}
	if got := r.export("auditor", "text=nobody&format=jsonl"); len(got) != 0 {
		t.Errorf("an empty export of JSON lines is %q", got)
	}
}

func TestExportKeepsLimits(t *testing.T) {
	r := newRig(t)
	mine, others := r.issue("enroller", "mine"), r.issue("operator", "others")
	r.newToken("servers", map[string]any{"role": "auditor", "profiles": []string{"server"}})
	for who, want := range map[string][]string{"enroller": {mine.ID}, "servers": nil, "auditor": {others.ID, mine.ID}} {
		var got []string
		for line := range bytes.Lines(r.export(who, "format=jsonl&profile=client")) {
			var c Certificate
			if err := json.Unmarshal(line, &c); err != nil {
				t.Fatal(err)
			}
			got = append(got, c.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s exports %v, want %v", who, got, want)
		}
	}
	for query, want := range map[string]int{
		"format=xml": 422, "limit=5": 422, "status=held": 422, "fingerprint=zz": 400, "serial=zz": 400, "issuer=nobody": 404,
	} {
		if status, answer := r.call("auditor", "GET", "/certificates/export?"+query, nil); status != want {
			t.Errorf("%s: %d %s, want %d", query, status, answer, want)
		}
	}
}

func TestCSVCells(t *testing.T) {
	// On the way: separators, quotes and lines within a cell stay within it.
	r := newRig(t)
	hostile := "=cmd|' /C calc'!A0\",\n\"=1+1\",x"
	r.fill(1, func(_ int, c *pki.Certificate) { c.Subject, c.Device = hostile, "@"+hostile })
	rows, err := csv.NewReader(bytes.NewReader(r.export("auditor", "profile=client&text=calc"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[1][3] != "'"+hostile || rows[1][13] != "'@"+hostile {
		t.Errorf("got %q", rows)
	}
}

// serve serves the API on a socket: streams break off there only.
func (r *rig) serve() *httptest.Server {
	s := httptest.NewServer(r.handler)
	r.t.Cleanup(s.Close)
	return s
}

func (r *rig) get(ctx context.Context, s *httptest.Server, who, path string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+Root+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.tokens[who])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

// pace lets pages of the store be held back, and fail.
type pace struct {
	store.Store
	mu   sync.Mutex
	list func(n int, p store.Page) error // called before the nth page since set
	n    int
}

// set begins to count again, with another list.
func (p *pace) set(list func(int, store.Page) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n, p.list = 0, list
}

func (p *pace) ListCertificates(ctx context.Context, f store.CertificateFilter, page store.Page) ([]pki.Certificate, string, error) {
	p.mu.Lock()
	p.n++
	n, list := p.n, p.list
	p.mu.Unlock()
	if list != nil {
		if err := list(n, page); err != nil {
			return nil, "", err
		}
	}
	return p.Store.ListCertificates(ctx, f, page)
}

func TestExportThatFailsIsBrokenOff(t *testing.T) {
	r := newRig(t)
	r.fill(2*exportPage, nil)
	p := &pace{Store: r.store}
	a := r.with(func(c *Config) { c.Store = p })
	s := a.serve()

	p.set(func(page int, _ store.Page) error {
		if page == 2 {
			return errors.New("the disk is gone")
		}
		return nil
	})
	res := a.get(t.Context(), s, "auditor", "/certificates/export?format=jsonl")
	b, err := io.ReadAll(res.Body)
	if res.StatusCode != 200 || err == nil {
		t.Errorf("an export whose second page fails: %d, %v, want a broken answer", res.StatusCode, err)
	}
	if n := bytes.Count(b, []byte("\n")); n != exportPage {
		t.Errorf("%d lines before the break, want those of the first page", n)
	}
	// The first page fails: that is said as ever.
	p.set(func(int, store.Page) error { return errors.New("the disk is gone") })
	if res := a.get(t.Context(), s, "auditor", "/certificates/export"); res.StatusCode != 500 {
		t.Errorf("an export whose first page fails: %d, want 500", res.StatusCode)
	}
	// A token that ends while it exports.
	p.set(func(page int, _ store.Page) error {
		if page == 2 {
			r.must("administrator", "DELETE", "/tokens/ending", nil, nil)
		}
		return nil
	})
	r.fill(2*exportPage, nil)
	r.newToken("ending", map[string]any{"role": "auditor"})
	res = a.get(t.Context(), s, "ending", "/certificates/export?format=jsonl")
	if b, err = io.ReadAll(res.Body); err == nil || bytes.Count(b, []byte("\n")) != 2*exportPage {
		t.Errorf("a token that was revoked during the second page got %d lines, %v, want two pages and a break", bytes.Count(b, []byte("\n")), err)
	}
	// Every turn came back.
	for range r.limits().Exports + 1 {
		p.set(nil)
		if res := a.get(t.Context(), s, "auditor", "/certificates/export?text=nobody"); res.StatusCode != 200 {
			t.Errorf("after broken exports: %d", res.StatusCode)
		}
	}
}

func TestExportsTakeTurns(t *testing.T) {
	r := newRig(t)
	r.fill(2*exportPage, nil)
	hold, held := make(chan struct{}), make(chan struct{}, r.limits().Exports)
	p := &pace{Store: r.store, list: func(_ int, p store.Page) error {
		if p.Cursor != "" { // a first page comes before the status
			held <- struct{}{}
			<-hold
		}
		return nil
	}}
	a := r.with(func(c *Config) { c.Store = p })
	s := a.serve()
	var open []*http.Response
	ctx, cancel := context.WithCancel(t.Context())
	for range r.limits().Exports {
		open = append(open, a.get(ctx, s, "auditor", "/certificates/export?format=jsonl"))
	}
	for range r.limits().Exports {
		<-held
	}
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	req, err := http.NewRequestWithContext(short, "GET", s.URL+Root+"/certificates/export", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.tokens["auditor"])
	if res, err := http.DefaultClient.Do(req); err == nil {
		t.Errorf("one export more than there are turns: %s, want it to wait", res.Status)
		res.Body.Close()
	}
	// The clients go: their turns come back.
	cancel()
	for _, res := range open {
		res.Body.Close()
	}
	p.set(nil)
	close(hold)
	res := a.get(t.Context(), s, "auditor", "/certificates/export?format=jsonl")
	if n := lines(t, res.Body); res.StatusCode != 200 || n < 2*exportPage {
		t.Errorf("after clients that went: %d with %d lines", res.StatusCode, n)
	}
}

func lines(t *testing.T, body io.Reader) (n int) {
	t.Helper()
	scan := bufio.NewScanner(body)
	for scan.Scan() {
		n++
	}
	if err := scan.Err(); err != nil {
		t.Fatal("after " + strconv.Itoa(n) + " lines: " + err.Error())
	}
	return n
}
