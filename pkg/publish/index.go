package publish

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/pki"
)

// IndexPath is where the paths of everything that can be copied to a static web server are told (see package export).
const IndexPath = "/published.json"

// index tells the paths of what is published now: CRLs, bundles, CA certificates, chains and roots. OCSP is none: its
// answers are made for who asks.
func (h *Handler) index(w http.ResponseWriter, r *http.Request) {
	content, err := json.Marshal(struct {
		Paths []string `json:"paths"`
	}{h.paths()})
	if err != nil {
		fail(w, http.StatusInternalServerError, "the index cannot be made")
		return
	}
	h.serve(w, r, document{mediaType: "application/json", content: crl.Octets(content), maxAge: h.cfg.CRLMaxAge})
}

// paths returns the paths in the order in which they are best copied: a certificate that names an address is of no use
// before there is something at it.
func (h *Handler) paths() []string {
	snap := h.cfg.Issuers.Current()
	var paths, bundles []string
	for _, l := range h.cfg.CRLs.State() {
		if l.Number != 0 {
			der := pki.CRLPath(l.KeyID, l.Scope)
			paths = append(paths, der, strings.TrimSuffix(der, ".crl")+".pem")
		}
	}
	for _, i := range snap.Issuers {
		if _, ok := h.cfg.CRLs.Bundle(i.Keys...); ok {
			bundles = append(bundles, "/crls/"+url.PathEscape(i.Name)+".pem")
		}
	}
	paths = append(paths, bundles...)
	for _, k := range snap.Keys() {
		paths = append(paths, "/ca/"+k.KeyID+".cer", "/ca/"+k.KeyID+".pem")
	}
	for _, i := range snap.Issuers {
		paths = append(paths, "/chain/"+url.PathEscape(i.Name)+".pem")
	}
	return append(paths, "/client-ca.pem", "/roots.pem")
}
