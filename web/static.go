package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"
)

// An asset is one embedded file under the address that its content gives it.
type asset struct {
	path        string // "/static/style.0123456789abcdef.css"
	etag        string // quoted, as in the header
	contentType string
	content     []byte
}

// assets maps the file's plain name ("style.css") to the asset. It is filled once and never changed.
var assets = loadAssets()

func loadAssets() map[string]asset {
	// The types are named here and not asked from the system's MIME table, which differs between machines.
	types := map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	entries, err := files.ReadDir("static")
	if err != nil {
		panic(err) // the folder is embedded: only a broken build lacks it
	}
	m := make(map[string]asset, len(entries))
	for _, e := range entries {
		content, err := files.ReadFile("static/" + e.Name())
		if err != nil {
			panic(err)
		}
		ext := path.Ext(e.Name())
		if types[ext] == "" {
			panic("web: no media type for static/" + e.Name())
		}
		sum := sha256.Sum256(content)
		hash := hex.EncodeToString(sum[:8])
		m[e.Name()] = asset{
			path:        "/static/" + strings.TrimSuffix(e.Name(), ext) + "." + hash + ext,
			etag:        `"` + hash + `"`,
			contentType: types[ext],
			content:     content,
		}
	}
	return m
}

// assetPath is the address of an embedded file, for the templates.
func assetPath(name string) (string, error) {
	a, ok := assets[name]
	if !ok {
		return "", fmt.Errorf("no static file %q", name)
	}
	return a.path, nil
}

// Static gives the handlers of the style sheet and the logo, by the exact address that the pages link to. The address
// carries a hash of the content, so the answers may be kept for ever. The handlers are safe for concurrent use; the
// map is the caller's.
func Static() map[string]http.Handler {
	m := make(map[string]http.Handler, len(assets))
	for _, a := range assets {
		m[a.path] = a
	}
	return m
}

func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", a.etag)
	h.Set("Content-Security-Policy", CSP) // an SVG opened by itself is a document
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}
