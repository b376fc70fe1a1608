// Package web holds the pages that a person sees in a browser, with their templates, style sheet and logo embedded.
//
// The start page tells a visitor which certificate authority this is: its certificates with their fingerprints, its
// CRLs and how fresh they are, where OCSP and the REST API answer, and how to trust the root on each platform. The
// package only renders: whoever serves a page fills in a [StartPage] or an [ErrorPage] and keeps every decision.
//
// What a certificate's fields can carry is hostile input. Three things stand against it: html/template escapes every
// value, control, invisible and bidirectional characters are replaced by a readable mark such as ⟨U+202E⟩, and [CSP]
// allows no script at all. Values that end up in a shell command are checked against a narrow alphabet first.
//
// There is no JavaScript and nothing is fetched from elsewhere, so that the pages work in an isolated network and in
// a text browser.
package web

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
)

// CSP is the Content-Security-Policy of every page: our own style sheet and images, and nothing else.
const CSP = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed templates static
var files embed.FS

var templates = template.Must(template.New("web").Funcs(template.FuncMap{
	"asset":  assetPath,
	"iso":    iso,
	"minute": minute,
	"stamp":  stamp,
}).ParseFS(files, "templates/*.html"))

// SetHeaders sets the headers that every page needs, whatever its status: its type, [CSP], and what keeps a browser
// from guessing types, framing the page, sending its address elsewhere, or showing an old state without asking.
func SetHeaders(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", CSP)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
}

// ErrorPage is what a person sees instead of the page asked for. All texts are shown escaped; a cause that the
// visitor must not know does not belong here.
type ErrorPage struct {
	Status    int    // HTTP status, 400 to 599
	Detail    string // what went wrong, one sentence; empty: a sentence that fits the status
	Hint      string // what to do next; may be empty
	RequestID string // under which the log knows this request; may be empty
}

var errorDetails = map[int]string{
	http.StatusNotFound:            "There is nothing at this address.",
	http.StatusMethodNotAllowed:    "This address does not take that kind of request.",
	http.StatusForbidden:           "You may not see this page.",
	http.StatusTooManyRequests:     "Too many requests came from your address. Wait a little, then try again.",
	http.StatusInternalServerError: "The server could not answer. This is not your fault; the log has the cause.",
	http.StatusServiceUnavailable:  "The server cannot answer right now. Try again in a little while.",
}

// RenderError writes the page for p. Nothing is written when it fails before the page is complete. The caller sets
// the status and the headers (see [SetHeaders]).
func RenderError(w io.Writer, p ErrorPage) error {
	if p.Status < 400 || p.Status > 599 {
		return fmt.Errorf("rendering the error page: status %d is no error", p.Status)
	}
	v := struct {
		Status                         int
		Title, Detail, Hint, RequestID string
	}{p.Status, http.StatusText(p.Status), visible(p.Detail), visible(p.Hint), visible(p.RequestID)}
	if v.Title == "" {
		v.Title = "Error"
	}
	if v.Detail == "" {
		v.Detail = errorDetails[p.Status]
	}
	return render(w, "error.html", v)
}

// RenderNotFound is [RenderError] for a page that does not exist.
func RenderNotFound(w io.Writer) error {
	return RenderError(w, ErrorPage{Status: http.StatusNotFound})
}

// render executes a template into memory first, so that a failure never leaves half a page behind.
func render(w io.Writer, name string, data any) error {
	if w == nil {
		return errors.New("rendering " + name + ": no writer")
	}
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		return fmt.Errorf("rendering %s: %w", name, err)
	}
	_, err := w.Write(b.Bytes())
	return err
}
