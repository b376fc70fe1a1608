package rest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// media are the types of the answers that are no JSON.
var media = map[string][]string{
	"getIssuerPEM":        {mediaPEM},
	"getIssuerDER":        {mediaDER},
	"getIssuerChain":      {mediaPEM},
	"getRoots":            {mediaPEM},
	"getClientCA":         {mediaPEM},
	"downloadCertificate": {mediaPEM, mediaDER},
	"exportCertificates":  {mediaCSV, mediaLines},
	"exportDevices":       {mediaCSV, mediaLines},
	"followAudit":         {mediaLines},
	"getMetrics":          {mediaText},
}

// The media types of files and streams.
const (
	mediaPEM   = "application/x-pem-file"
	mediaDER   = "application/pkix-cert" // RFC 2585, Section 4.1
	mediaCSV   = "text/csv"              // RFC 4180
	mediaLines = "application/jsonl"
	mediaText  = "text/plain"
)

// tags are the groups of routes, in the order in which a reader meets them.
var tags = []*huma.Tag{
	{Name: "Server", Description: "What server this is"},
	{Name: "Issuers", Description: "The CAs, and what verifiers need of them; open to everybody"},
	{Name: "Certificates", Description: "Issue, find, renew, revoke and hold certificates"},
	{Name: "Revocations", Description: "Revoke everything that a query finds, and block keys"},
	{Name: "Profiles", Description: "What certificates are for: the rules by which they are issued"},
	{Name: "Enrollment", Description: "Where devices enroll by SCEP, their one-time challenges, and requests that wait for a person"},
	{Name: "Devices", Description: "Which devices there are, how they are, and whether they may have certificates"},
	{Name: "Tokens", Description: "API tokens, and what they may do"},
	{Name: "Audit", Description: "Who did what, as a chain of records that tells of every change to it"},
	{Name: "Self-service", Description: "For holders of certificates, who prove themselves with one on the mTLS listener"},
}

// files describes the answers of a route that is no JSON; nil for the others.
func files(id string) map[string]*huma.Response {
	types, ok := media[id]
	if !ok {
		return nil
	}
	r := &huma.Response{Description: "The file", Content: map[string]*huma.MediaType{}}
	for _, t := range types {
		schema := &huma.Schema{Type: huma.TypeString}
		if t == mediaDER {
			schema = &huma.Schema{} // OpenAPI 3.1, Section 4.8.14.2: octets have no schema
		}
		r.Content[t] = &huma.MediaType{Schema: schema}
	}
	if slices.Contains(types, mediaLines) {
		r.Description = "A stream; one that is broken off has failed"
	}
	return map[string]*huma.Response{strconv.Itoa(http.StatusOK): r}
}

// completeDocument adds to the description what the library does not know of, when all routes are registered.
func completeDocument(doc *huma.OpenAPI) {
	doc.Tags = tags
	doc.Info.Contact = &huma.Contact{Name: "Certwright", URL: "https://github.com/certwright/certwright"}
	for _, path := range doc.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Put, path.Delete} {
			if op == nil {
				continue
			}
			if op.OperationID == "putProfile" { // which may also create one
				ok, created := strconv.Itoa(http.StatusOK), strconv.Itoa(http.StatusCreated)
				op.Responses[created] = &huma.Response{
					Description: http.StatusText(http.StatusCreated), Headers: maps.Clone(op.Responses[ok].Headers), Content: op.Responses[ok].Content,
				}
			}
			for status, r := range op.Responses {
				if r.Headers == nil {
					continue
				}
				// It is told by the content's own place, and one of a description is ignored.
				delete(r.Headers, "Content-Type")
				if status != strconv.Itoa(http.StatusCreated) {
					delete(r.Headers, "Location")
				}
			}
			for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
				if r := op.Responses[status]; status == strconv.Itoa(http.StatusTooManyRequests) || status == strconv.Itoa(http.StatusServiceUnavailable) {
					r.Headers = map[string]*huma.Param{"Retry-After": {
						Description: "Seconds to wait before trying again", Schema: &huma.Schema{Type: huma.TypeInteger},
					}}
				}
			}
		}
	}
}
