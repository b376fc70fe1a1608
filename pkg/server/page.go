package server

import (
	"bytes"
	"net/http"
	"strconv"

	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/keys"
	"github.com/certwright/certwright/web"
)

// startPage shows what CA this is. tls says that it goes out over HTTPS.
func (s *Server) startPage(tls bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var page bytes.Buffer
		if err := web.RenderStart(&page, s.describe(tls)); err != nil {
			s.log.ErrorContext(r.Context(), "rendering the start page", "err", err)
			http.Error(w, "the start page cannot be shown", http.StatusInternalServerError)
			return
		}
		web.SetHeaders(w.Header())
		// The client may be gone; there is nobody else to tell.
		_, _ = w.Write(page.Bytes())
	}
}

func (s *Server) describe(tls bool) web.StartPage {
	snapshot := s.issuers.Current()
	p := web.StartPage{
		Name: "Certwright", Version: s.Version, Now: s.clock.Now(), TLS: tls,
		HTTPURL: s.PublicURL, HTTPSURL: s.HTTPSURL,
		RootsPath: "/roots.pem", ClientCAPath: "/client-ca.pem", OpenAPIPath: "/api/v1/openapi.yaml",
	}
	for _, i := range snapshot.Issuers {
		k := i.Current
		c := k.Certificate
		if len(c.Subject.Organization) > 0 {
			p.Organization = c.Subject.Organization[0]
		}
		cert := web.Certificate{
			Role: web.RoleIssuing, Issuer: i.Name, Subject: c.Subject.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			SignatureAlgorithm: c.SignatureAlgorithm.String(), Serial: k.SerialNumber().String(), SHA256: k.Fingerprint,
			PEMPath: "/ca/" + k.KeyID + ".pem", DERPath: "/ca/" + k.KeyID + ".cer",
		}
		if i.Root {
			cert.Role = web.RoleRoot
		}
		if !k.SelfSigned() && k.Parent != nil {
			cert.IssuedBy = c.Issuer.String()
		}
		if k.Revocation != nil {
			cert.Revoked = k.Revocation.RevokedAt
		}
		if alg, err := keys.AlgorithmOf(c.PublicKey); err == nil {
			cert.KeyAlgorithm = alg.String()
		}
		p.Certificates = append(p.Certificates, cert)
		p.Chains = append(p.Chains, web.Chain{Issuer: i.Name, PEMPath: "/chain/" + i.Name + ".pem", CRLPath: "/crls/" + i.Name + ".pem"})
		p.Responders = append(p.Responders, web.Responder{Issuer: i.Name, URL: s.PublicURL + "/ocsp/" + k.KeyID})
		p.CRLs = append(p.CRLs, s.describeCRL(i, k))
	}
	return p
}

func (s *Server) describeCRL(i *issuer.Issuer, k *issuer.Key) web.CRL {
	c := web.CRL{
		Issuer: i.Name, URL: s.PublicURL + "/crl/" + k.KeyID + ".crl",
		DERPath: "/crl/" + k.KeyID + ".crl", PEMPath: "/crl/" + k.KeyID + ".pem",
	}
	if l, ok := s.crls.Latest(k.KeyID); ok {
		c.Number, c.ThisUpdate, c.NextUpdate, c.CreatedAt = strconv.FormatInt(l.Number, 10), l.ThisUpdate, l.NextUpdate, l.CreatedAt
		c.Entries, c.SizeBytes = l.Entries, int(l.DER.Size())
	}
	return c
}
