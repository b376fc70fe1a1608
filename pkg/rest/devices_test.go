package rest

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/store"
)

// ask is call with headers; the address is sent as it stands.
func (r *rig) ask(who, method, path string, body any, header ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	var b bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&b).Encode(body); err != nil {
			r.t.Fatal(err)
		}
	}
	req := httptest.NewRequestWithContext(r.t.Context(), method, Root+path, &b)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+r.tokens[who])
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

func deviceIn(t *testing.T, w *httptest.ResponseRecorder, want int) (d Device) {
	t.Helper()
	if w.Code != want {
		t.Fatalf("%d %s, want %d", w.Code, w.Body, want)
	}
	if want < 300 {
		if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestDeviceIDs: ids survive in addresses, whatever is in them.
func TestDeviceIDs(t *testing.T) {
	r := newRig(t)
	// Through a real server and client too, since both have their own ideas of addresses.
	server := httptest.NewServer(r.handler)
	defer server.Close()
	for _, id := range []string{
		"a", "a/b", "a/block", "/", "//", "a%b", "a%2Fb", "a%252Fb", "%", "100%25", "ä/日本", "a b", "a+b", "a?b=c", "a#b", "a;b", "a&b", "devices/x", "export", "import", "...", "a:b@c",
		`a\b`, `"quoted"`, "<b>", strings.Repeat("%", 200), "CN=a,O=b",
	} {
		w := r.ask("operator", "POST", "/devices", map[string]any{"id": id, "group": "g"})
		d := deviceIn(t, w, http.StatusCreated)
		if d.ID != id {
			t.Errorf("%q was registered as %q", id, d.ID)
		}
		location := w.Header().Get("Location")
		req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+location, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+r.tokens["auditor"])
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(resp.Body).Decode(&d)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || d.ID != id {
			t.Errorf("GET %s = %d, %q, %v; want %q", location, resp.StatusCode, d.ID, err, id)
		}
		path := strings.TrimPrefix(location, Root)
		if d := deviceIn(t, r.ask("operator", "POST", path+"/block", map[string]any{}), http.StatusOK); d.ID != id || d.Status != "blocked" {
			t.Errorf("block of %q = %+v", id, d)
		}
		if w := r.ask("auditor", "GET", "/certificates?"+strings.SplitN(d.Certificates, "?", 2)[1], nil); w.Code != http.StatusOK {
			t.Errorf("certificates of %q: %d %s", id, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/devices/" + url.PathEscape(" a"), "/devices/%0a", "/devices/%ff", "/devices/" + strings.Repeat("x", 201), "/devices/%2e%2e"} {
		if w := r.ask("auditor", "GET", path, nil); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("GET %s = %d %s", path, w.Code, w.Body)
		}
	}
	for _, id := range []string{"", " a", "a\n", "..", strings.Repeat("x", 201)} {
		if w := r.ask("operator", "POST", "/devices", map[string]any{"id": id}); w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity {
			t.Errorf("id %q: %d %s", id, w.Code, w.Body)
		}
	}
}

// A thousand devices of which much is said fit into one request.
func TestImportOfAThousandDevices(t *testing.T) {
	r := newRig(t)
	var all []map[string]any
	for i := range device.MaxBulk {
		all = append(all, map[string]any{"id": fmt.Sprint("device-", i), "group": "hall-17", "labels": map[string]string{"site": "B"}, "note": strings.Repeat("x", 1000)})
	}
	w := r.ask("operator", "POST", "/fleet/import", map[string]any{"devices": all})
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"created":1000`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestDevices(t *testing.T) { onBothStores(t, devices) }

func devices(t *testing.T, r *rig) {
	body := map[string]any{"id": "sensor-17", "group": "hall-3", "owner": "Ä", "labels": map[string]string{"site": "B"}, "subject": "CN=sensor-17, O=Example", "sans": []string{"DNS:s17.example"}, "note": "n"}
	w := r.ask("operator", "POST", "/devices", body)
	d := deviceIn(t, w, http.StatusCreated)
	if d.Version != 1 || d.Status != "expected" || d.Subject != "CN=sensor-17,O=Example" || d.CreatedBy != "token:operator" || w.Header().Get("ETag") != `"1"` {
		t.Errorf("created: %+v, ETag %s", d, w.Header().Get("ETag"))
	}
	deviceIn(t, r.ask("operator", "POST", "/devices", body), http.StatusConflict)
	deviceIn(t, r.ask("auditor", "GET", "/devices/none", nil), http.StatusNotFound)

	// A change needs what it was made on.
	change := map[string]any{"group": "hall-4"}
	deviceIn(t, r.ask("operator", "PUT", "/devices/sensor-17", change), http.StatusPreconditionRequired)
	deviceIn(t, r.ask("operator", "PUT", "/devices/sensor-17", change, "If-Match", `"7"`), http.StatusPreconditionFailed)
	deviceIn(t, r.ask("operator", "PUT", "/devices/sensor-17", change, "If-Match", `x`), http.StatusBadRequest)
	deviceIn(t, r.ask("operator", "PUT", "/devices/none", change, "If-Match", `*`), http.StatusNotFound)
	if d := deviceIn(t, r.ask("operator", "PUT", "/devices/sensor-17", change, "If-Match", `"1"`), http.StatusOK); d.Version != 2 || d.Group != "hall-4" || d.Owner != "" || d.Subject != "" {
		t.Errorf("changed: %+v", d)
	}

	// Blocking revokes, and lets nothing through.
	issue := func() (int, Certificate) {
		var c Certificate
		status, answer := r.call("enroller", "POST", "/certificates", map[string]any{"csr": newCSR(t, "sensor-17.example"), "profile": "server", "issuer": "issuing", "device": "sensor-17"})
		_ = json.Unmarshal(answer, &c)
		return status, c
	}
	status, c := issue()
	if status != http.StatusCreated {
		t.Fatalf("issuing: %d", status)
	}
	if d := deviceIn(t, r.ask("auditor", "GET", "/devices/sensor-17", nil), http.StatusOK); d.Status != "enrolled" || d.Certificate != c.ID || d.NotAfter == nil || d.LastSeenAt == nil {
		t.Errorf("enrolled: %+v", d)
	}
	deviceIn(t, r.ask("operator", "POST", "/devices/sensor-17/block", map[string]any{}, "If-Match", `"1"`), http.StatusPreconditionFailed)
	deviceIn(t, r.ask("operator", "POST", "/devices/sensor-17/block", map[string]any{"revocation_reason": "certificateHold"}), http.StatusUnprocessableEntity)
	if d := deviceIn(t, r.ask("operator", "POST", "/devices/sensor-17/block", nil), http.StatusOK); d.Status != "blocked" || d.Reason != "" {
		t.Errorf("blocked without a body = %+v", d)
	}
	if d := deviceIn(t, r.ask("operator", "POST", "/devices/sensor-17/block", map[string]any{"reason": "stolen"}), http.StatusOK); d.Status != "blocked" || d.Reason != "stolen" || d.Revoking {
		t.Errorf("blocked: %+v", d)
	}
	var after Certificate
	r.must("auditor", "GET", "/certificates/"+c.ID, nil, &after)
	if after.Status != "revoked" || after.Revocation == nil || after.Revocation.Reason != "keyCompromise" {
		t.Errorf("the certificate of a blocked device: %+v", after)
	}
	if status, _ := issue(); status != http.StatusForbidden && status != http.StatusUnprocessableEntity && status != http.StatusConflict {
		t.Errorf("issuing to a blocked device: %d", status)
	}
	deviceIn(t, r.ask("operator", "POST", "/devices/sensor-17/unblock", nil), http.StatusOK)
	deviceIn(t, r.ask("operator", "POST", "/devices/sensor-17/unblock", nil), http.StatusConflict)
	if d := deviceIn(t, r.ask("operator", "POST", "/devices/sensor-17/retire", map[string]any{}), http.StatusOK); d.Status != "retired" {
		t.Errorf("retired: %+v", d)
	}

	// Many at once.
	var many []map[string]any
	for i := range 300 {
		many = append(many, map[string]any{"id": fmt.Sprintf("m-%03d", i), "group": fmt.Sprint("g", i%3), "labels": map[string]string{"k": fmt.Sprint(i % 2)}, "note": "=1+1"})
	}
	var made struct{ Created, Skipped int }
	r.must("operator", "POST", "/fleet/import", map[string]any{"devices": many[:200]}, &made)
	if made.Created != 200 || made.Skipped != 0 {
		t.Errorf("import: %+v", made)
	}
	if status, answer := r.call("operator", "POST", "/fleet/import", map[string]any{"devices": many}); status != http.StatusConflict {
		t.Errorf("import of what is there: %d %s", status, answer)
	}
	r.must("operator", "POST", "/fleet/import", map[string]any{"devices": many, "existing": "skip"}, &made)
	if made.Created != 100 || made.Skipped != 200 {
		t.Errorf("import with skip: %+v", made)
	}
	bad := []map[string]any{{"id": "x"}, {"id": "y", "labels": map[string]string{"a b": "c"}}}
	if status, answer := r.call("operator", "POST", "/fleet/import", map[string]any{"devices": bad}); status != http.StatusBadRequest || !strings.Contains(string(answer), "devices.1.labels") {
		t.Errorf("import with a bad line: %d %s", status, answer)
	}

	// Lists and exports.
	list := func(query string) (ids []string, count int) {
		for cursor := ""; ; {
			var page struct {
				Devices []Device
				Next    string
				Count   *int
			}
			r.must("auditor", "GET", "/devices?count=true&limit=40&"+query+"&cursor="+cursor, nil, &page)
			for _, d := range page.Devices {
				ids = append(ids, d.ID)
			}
			if count = *page.Count; page.Next == "" {
				return ids, count
			}
			cursor = page.Next
		}
	}
	for query, want := range map[string]int{
		"": 301, "group=g1": 100, "label=k%3D1": 150, "group=g0&label=k%3D0": 50, "text=M-01": 10, "status=retired": 1, "status=expected,retired": 301, "failing=true": 0, "label=k%3D1&label=x%3Dy": 0,
	} {
		ids, count := list(query)
		if len(ids) != want || count != want || !slices.IsSorted(ids) {
			t.Errorf("%s: %d devices, counted %d, want %d", query, len(ids), count, want)
		}
	}
	for query, want := range map[string]int{"status=lost": 422, "label=k": 400, "label=k%3D1&label=k%3D2": 400, "cursor=x": 400, "limit=0": 422, "colour=red": 422} {
		if status, answer := r.call("auditor", "GET", "/devices?"+query, nil); status != want {
			t.Errorf("%s: %d %s, want %d", query, status, answer, want)
		}
	}
	_, text := r.call("auditor", "GET", "/fleet/export?group=g1", nil)
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 101 || !slices.Equal(rows[0], device.Columns()) || rows[1][6] != "'=1+1" {
		t.Errorf("CSV: %d rows, %v: %.300s", len(rows), err, text)
	}
	n := 0
	for e, err := range device.ReadCSV(bytes.NewReader(text)) { // what was exported can be imported
		if err != nil || e.Group != "g1" || e.Note != "=1+1" || e.Labels["k"] == "" {
			t.Errorf("from CSV: %+v, %v", e, err)
		}
		n++
	}
	_, text = r.call("auditor", "GET", "/fleet/export?format=jsonl", nil)
	if lines := bytes.Count(text, []byte("\n")); n != 100 || lines != 301 {
		t.Errorf("%d devices read back, %d lines", n, lines)
	}

	// Figures.
	now := r.config.Now().UTC()
	if err := r.store.NoteContacts(t.Context(), nil, []store.Refusal{
		{Day: int(now.Unix() / 86400), Point: "default", Kind: "enroll", Reason: "challenge", Number: 3},
		{Day: int(now.Unix()/86400) - 10, Point: "default", Kind: "enroll", Reason: "challenge", Number: 5},
	}); err != nil {
		t.Fatal(err)
	}
	var fleet struct {
		Groups   []FleetGroup
		Refusals []FleetRefusals
	}
	r.must("auditor", "GET", "/fleet", nil, &fleet)
	if len(fleet.Groups) != 4 || fleet.Groups[0].Status["expected"] != 100 || fleet.Groups[3].Group != "hall-4" || fleet.Groups[3].Status["retired"] != 1 ||
		len(fleet.Refusals) != 1 || fleet.Refusals[0].Number != 3 || fleet.Refusals[0].Day != now.Format("2006-01-02") {
		t.Errorf("fleet = %+v", fleet)
	}

	// A token for some issuers sees and changes no devices: these have certificates of all.
	r.newToken("limited", map[string]any{"role": "operator", "issuers": []string{"issuing"}})
	for _, route := range [][2]string{{"GET", "/devices"}, {"GET", "/devices/m-001"}, {"GET", "/fleet"}, {"GET", "/fleet/export"}, {"POST", "/devices/m-001/block"}} {
		var body any
		if route[0] == "POST" {
			body = map[string]any{}
		}
		if status, answer := r.call("limited", route[0], route[1], body); status != http.StatusForbidden {
			t.Errorf("%s %s with a limited token: %d %s", route[0], route[1], status, answer)
		}
	}
	if d, err := r.store.Device(t.Context(), "m-001"); err != nil || d.Status != pki.DeviceExpected {
		t.Errorf("%+v, %v", d, err)
	}
}
