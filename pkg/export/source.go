package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/certwright/certwright/pkg/fault"
)

// IndexPath is where a server tells which paths there are to export: a JSON document {"paths": ["/crl/...", ...]}.
const IndexPath = "/published.json"

// Limits on foreign bytes: a CRL of a million entries has 40 MB, in PEM a third more.
const (
	maxIndexBytes = 16 << 20
	maxFileBytes  = 1 << 30
	maxPaths      = 100_000
)

// errNotModified says that a file is still the one with the tag that was asked about.
var errNotModified = errors.New("not modified")

// Source is a server whose published files are exported.
type Source struct {
	Base   string       // of its addresses, without a slash at the end: http://pki.example.com
	Client *http.Client // required
}

// HandlerSource is a source within the process.
func HandlerSource(h http.Handler) Source {
	return Source{Base: "http://localhost", Client: &http.Client{Transport: inProcess{h}}}
}

// Paths returns the paths of everything that is published.
func (s Source) Paths(ctx context.Context) ([]string, error) {
	res, err := s.get(ctx, IndexPath, "")
	if err != nil {
		return nil, fmt.Errorf("asking what is published: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Unavailable, "%s%s answers %s", s.Base, IndexPath, res.Status).
			WithHint("is this the address of a Certwright server of this release?")
	}
	var index struct {
		Paths []string `json:"paths"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxIndexBytes)).Decode(&index); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "%s%s is no index of published files: %v", s.Base, IndexPath, err)
	}
	if len(index.Paths) > maxPaths {
		return nil, fault.New(fault.Unavailable, "%s%s names %d files", s.Base, IndexPath, len(index.Paths))
	}
	return index.Paths, nil
}

// Get fetches a file and its entity tag. It returns errNotModified when the file is still the one with this tag.
func (s Source) Get(ctx context.Context, path, tag string) (File, string, error) {
	name, err := nameOf(path)
	if err != nil {
		return File{}, "", err
	}
	res, err := s.get(ctx, path, tag)
	if err != nil {
		return File{}, "", err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotModified && tag != "":
		return File{}, "", errNotModified
	case res.StatusCode != http.StatusOK:
		return File{}, "", fault.New(fault.Unavailable, "the server answers %s", res.Status)
	}
	content, err := io.ReadAll(io.LimitReader(res.Body, maxFileBytes+1))
	switch {
	case err != nil:
		return File{}, "", err
	case len(content) > maxFileBytes:
		return File{}, "", fault.New(fault.Unavailable, "the file has more than %d MiB", maxFileBytes>>20)
	case len(content) == 0:
		return File{}, "", fault.New(fault.Unavailable, "the file is empty")
	}
	f := File{Name: name, MediaType: res.Header.Get("Content-Type"), CacheControl: res.Header.Get("Cache-Control"), Content: content}
	// A date that cannot be read is none.
	f.LastModified, _ = http.ParseTime(res.Header.Get("Last-Modified"))
	return f, res.Header.Get("ETag"), nil
}

func (s Source) get(ctx context.Context, path, tag string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Base+path, nil)
	if err != nil {
		return nil, err
	}
	// What is exported are files; and a tag of a compressed one is not theirs.
	r.Header.Set("Accept-Encoding", "identity")
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	return s.Client.Do(r)
}

// nameOf returns the name of the file at a path. Web servers unescape paths, so names are plain. A name that leads out of
// the target, or to a hidden file, is refused: the index comes from elsewhere.
func nameOf(path string) (string, error) {
	plain, err := url.PathUnescape(path)
	name, ok := strings.CutPrefix(plain, "/")
	bad := err != nil || !ok || !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00\r\n") || len(name) > 512
	for part := range strings.SplitSeq(name, "/") {
		bad = bad || part == "" || strings.HasPrefix(part, ".")
	}
	if bad {
		return "", fault.New(fault.BadRequest, "%q is not a path that can be exported", path)
	}
	return name, nil
}

// inProcess asks a handler without a network between.
type inProcess struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	a := &answer{header: http.Header{}, status: http.StatusOK}
	p.h.ServeHTTP(a, r)
	return &http.Response{
		Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header, Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()), Request: r,
	}, nil
}

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	status int
	begun  bool
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if !a.begun {
		a.status, a.begun = status, true
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.begun = true
	return a.body.Write(b)
}
