package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/audit"
)

func TestRootMatchesRFC6962(t *testing.T) {
	// The test vectors of the Certificate Transparency reference implementation.
	leaves := [][]byte{{}, {0x00}, {0x10}, {0x20, 0x21}, {0x30, 0x31}, {0x40, 0x41, 0x42, 0x43}, {0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57}, {0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f}}
	want := []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	for n := range want {
		if got := audit.Root(leaves[:n]); hex.EncodeToString(got[:]) != want[n] {
			t.Errorf("root of %d leaves = %x, want %s", n, got, want[n])
		}
	}
}

func TestCanonicalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := audit.Record{
			Time:   time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "time")),
			Action: rapid.String().Draw(t, "action"), Actor: rapid.String().Draw(t, "actor"),
			Detail: rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "detail"),
		}
		b := r.Canonical()
		back, err := audit.Parse(b)
		if err != nil {
			t.Fatalf("Parse(%s): %v", b, err)
		}
		if string(back.Canonical()) != string(b) {
			t.Fatalf("canonical bytes change on the way round: %s, then %s", b, back.Canonical())
		}
	})
}

func TestParseRefusesOtherForms(t *testing.T) {
	good := string(audit.Record{Action: "a", Actor: "b"}.Canonical())
	for name, b := range map[string]string{
		"white space":   strings.Replace(good, ":", ": ", 1),
		"unknown field": strings.Replace(good, "{", `{"x":1,`, 1),
		"twice a field": strings.Replace(good, `"action":"a"`, `"action":"z","action":"a"`, 1),
		"truncated":     good[:len(good)-1],
		"trailing":      good + "{}",
	} {
		if _, err := audit.Parse([]byte(b)); err == nil {
			t.Errorf("%s: Parse(%s) succeeded", name, b)
		}
	}
}

func chain(n int) (batches []audit.Batch, records [][][]byte) {
	var v audit.Verifier
	seq := int64(1)
	for c := int64(1); c <= int64(n); c++ {
		var rs [][]byte
		for range c % 4 {
			rs = append(rs, audit.Record{Action: "a", Actor: "b", Time: time.Unix(c, 0)}.Canonical())
		}
		root := audit.Root(rs)
		v.Head = audit.Next(v.Head, c, root)
		batches = append(batches, audit.Batch{Change: c, FirstSeq: seq, Count: len(rs), Root: root, Head: v.Head})
		records = append(records, rs)
		seq += int64(len(rs))
	}
	return batches, records
}

func verify(batches []audit.Batch, records [][][]byte) error {
	var v audit.Verifier
	for i := range batches {
		if err := v.Add(batches[i], records[i]); err != nil {
			return err
		}
	}
	return nil
}

func TestVerifierFindsEveryEdit(t *testing.T) {
	if err := verify(chain(9)); err != nil {
		t.Fatalf("untouched chain: %v", err)
	}
	edits := map[string]func(b []audit.Batch, r [][][]byte) ([]audit.Batch, [][][]byte){
		"record changed": func(b []audit.Batch, r [][][]byte) ([]audit.Batch, [][][]byte) {
			r[2][0] = audit.Record{Action: "forged"}.Canonical()
			return b, r
		},
		"record dropped": func(b []audit.Batch, r [][][]byte) ([]audit.Batch, [][][]byte) { r[2] = r[2][1:]; return b, r },
		"batch dropped": func(b []audit.Batch, r [][][]byte) ([]audit.Batch, [][][]byte) {
			return append(b[:3], b[4:]...), append(r[:3], r[4:]...)
		},
		"batches swapped": func(b []audit.Batch, r [][][]byte) ([]audit.Batch, [][][]byte) {
			b[1], b[2] = b[2], b[1]
			r[1], r[2] = r[2], r[1]
			return b, r
		},
		"resealed": func(b []audit.Batch, r [][][]byte) ([]audit.Batch, [][][]byte) {
			r[2][0] = audit.Record{Action: "forged"}.Canonical()
			b[2].Root = audit.Root(r[2])
			return b, r
		},
	}
	for name, edit := range edits {
		if err := verify(edit(chain(9))); err == nil {
			t.Errorf("%s: the verifier noticed nothing", name)
		}
	}
}

func TestLongValuesAreCut(t *testing.T) {
	record := func(detail map[string]string) audit.Record {
		return audit.Record{Time: time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC), Action: "enrollment.refuse", Actor: "scep:default", Detail: detail}
	}
	long := strings.Repeat("ü", 30_000)
	short := record(map[string]string{"why": strings.Repeat("x", 4096), "empty": ""})
	for name, c := range map[string]struct {
		detail map[string]string
		most   int
	}{
		"none":               {nil, 200},
		"one long value":     {map[string]string{"why": long, "subject": "CN=x"}, 5 << 10},
		"much to escape":     {map[string]string{"why": strings.Repeat("\x01", 60_000), "subject": strings.Repeat(`\"`, 9000)}, 10 << 10},
		"not UTF-8":          {map[string]string{"why": strings.Repeat("\xff", 60_000)}, 5 << 10},
		"some not UTF-8":     {map[string]string{"why": "a\xffb", "subject": "CN=x"}, 300},
		"line separators":    {map[string]string{"why": strings.Repeat("\u2028", 60_000)}, 5 << 10},
		"many long values":   {map[string]string{"a": long, "b": long, "c": long, "d": long, "e": long, "f": long, "g": long, "h": long, "i": long, "j": long, "k": long}, 36 << 10},
		"many of every kind": {map[string]string{"a": long, "b": long, "c": long, "d": long, "e": long, "f": long, "g": long, "h": long, "i": "x", "j": long, "k": ""}, 36 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			whole := maps.Clone(c.detail)
			b := record(c.detail).Canonical()
			if len(b) > c.most {
				t.Errorf("the record has %d octets, want at most %d", len(b), c.most)
			}
			if !maps.Equal(whole, c.detail) {
				t.Error("the caller's map was changed")
			}
			r, err := audit.Parse(b)
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			for key, value := range c.detail {
				kept, about, cut := strings.Cut(r.Detail[key], "... (cut: ")
				switch {
				case !cut && kept != strings.ToValidUTF8(value, "\ufffd"):
					t.Errorf("%s became %q", key, kept)
				case cut && about != fmt.Sprintf("%d octets, SHA-256 %x)", len(value), sha256.Sum256([]byte(value))):
					t.Errorf("%s is said to have %s", key, about)
				case cut && len(kept) < 500:
					t.Errorf("of %s %d octets are left", key, len(kept))
				}
			}
			if again := r.Canonical(); !bytes.Equal(again, b) {
				t.Errorf("the record that was read is another: %d octets, was %d", len(again), len(b))
			}
		})
	}
	if r, err := audit.Parse(short.Canonical()); err != nil || !maps.Equal(r.Detail, short.Detail) {
		t.Errorf("what is not too long became %v, %v", r.Detail, err)
	}

	odd := record(nil)
	odd.Actor, odd.Target, odd.Source, odd.RequestID = "\xff", "device/\xc3", "\x80", "\xed\xa0\x80"
	if r, err := audit.Parse(odd.Canonical()); err != nil || r.Actor != "\ufffd" || r.Target != "device/\ufffd" {
		t.Errorf("a record that is not UTF-8 became %+v, %v", r, err)
	}

	// What an earlier release has written stays what it was.
	b := new(bytes.Buffer)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(record(map[string]string{"why": long})); err != nil {
		t.Fatal(err)
	}
	if r, err := audit.Parse(bytes.TrimSuffix(b.Bytes(), []byte("\n"))); err != nil || r.Detail["why"] != long {
		t.Errorf("a long record of before: %v", err)
	}
}
