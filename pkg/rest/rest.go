// Package rest is the REST front-end: it decodes, asks and encodes. Every route stands in one table with the role that
// it takes; errors are problem documents (RFC 9457); the OpenAPI 3.1 description is made from the same table and
// committed as api/openapi.yaml.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/certwright/certwright/pkg/auth"
	"github.com/certwright/certwright/pkg/ca"
	"github.com/certwright/certwright/pkg/campaign"
	"github.com/certwright/certwright/pkg/clock"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/device"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/problem"
	"github.com/certwright/certwright/pkg/store"
)

// Root is where the API begins.
const Root = "/api/v1"

// Limits on foreign bytes.
const (
	bodyReadTimeout = 10 * time.Second
	// maxTokenAge is how old what this replica knows of tokens may be: a revoked one must not live on because the store is away.
	maxTokenAge = time.Minute
)

// How long a request may wait for the store, which may be on the far side of a network that has gone silent. A write that
// has begun goes on to its outcome. The second is for walks over everything; both end before the listener's write timeout.
const (
	requestTimeout = 20 * time.Second
	walkTimeout    = 100 * time.Second
)

// Store is the part of a store that the front-end reads; what changes certificates goes through the authority.
type Store interface {
	store.Certificates
	store.Tokens
	store.Audit
	store.Profiles
	Device(ctx context.Context, id string) (pki.Device, error)
	ListDevices(ctx context.Context, f store.DeviceFilter, p store.Page) ([]pki.Device, string, error)
	CountDevices(ctx context.Context, f store.DeviceFilter, limit int) (int, error)
	Campaign(ctx context.Context, id string) (store.Campaign, error)
	ListCampaigns(ctx context.Context, limit int) ([]store.Campaign, error)
	BlockedKeys(ctx context.Context) (map[[32]byte]store.BlockedKey, error)
	store.IssuerSettings
	// Head returns the newest change; it is cheap.
	Head(ctx context.Context) (store.Head, error)
	// Idempotency returns what a request got that has been answered before.
	Idempotency(ctx context.Context, id [32]byte, at time.Time) (store.Idempotency, error)
}

// Config is what the API is made of. All fields but Limits and Logger are required.
type Config struct {
	Store     Store
	CA        *ca.Authority
	Issuers   *issuer.Set
	CRLs      *crl.Publisher
	Campaigns *campaign.Runner
	Tokens    *auth.Tokens
	CSRParser csr.Parser
	// Sync makes this replica see what was just written, before the request is answered.
	Sync func(ctx context.Context) error
	// Now is the clock for status and expiry in answers; Clock is the one for records.
	Now   func() time.Time
	Clock *clock.Guard
	// Age tells how long ago this replica last heard of its store: watch.Watcher.Age.
	Age func() time.Duration
	// Metrics writes the server's figures, in the text format of Prometheus.
	Metrics http.Handler
	// Points are the enrollment points, Enrollments what is kept of them, Decisions settle requests that wait, and RAs tell of
	// registration authorities.
	Points      *enrollment.Points
	Enrollments EnrollmentStore
	Decisions   Decisions
	RAs         RAs
	// Devices changes the registry of devices.
	Devices *device.Registry
	// Server is what GET /server tells.
	Server Server
	// Limits bounds what requests may cost. The zero value has the defaults.
	Limits Limits
	Logger *slog.Logger

	heartbeat time.Duration // of streams; 0 means heartbeatEvery
}

// api holds what handlers need.
type api struct {
	Config
	huma      huma.API
	searches  turns
	walks     turns
	exports   turns
	keyMaking turns
	followers turns
	endings   endings
	twins     twins
	limits    *limits
}

// access is a route's row in the table of authority.
type access struct {
	role pki.Role // the least; RoleNone is open to everybody
	own  bool     // an enroller may read here too, but sees only what it issued
	self bool     // for the holder of a client certificate, whatever the roles say
	tls  bool     // the answer holds a secret: it goes over TLS or not at all
}

var (
	open          = access{}
	self          = access{self: true}
	readAll       = access{role: pki.RoleAuditor}
	readOwn       = access{role: pki.RoleAuditor, own: true}
	enroll        = access{role: pki.RoleEnroller}
	operate       = access{role: pki.RoleOperator}
	handOutKey    = access{role: pki.RoleOperator, tls: true} // not for enrollers: they prove that they have the key
	administrate  = access{role: pki.RoleAdministrator}
	renameHumaErr sync.Once
)

// routes registers every route. Paths are below Root.
func (a *api) routes() {
	route(a, open, http.MethodGet, "/server", "getServer", "Server", "What server this is", a.getServer)
	route(a, readAll, http.MethodGet, "/metrics", "getMetrics", "Server", "The server's figures, in the text format of Prometheus", a.getMetrics)

	route(a, open, http.MethodGet, "/issuers", "listIssuers", "Issuers", "List the issuers", a.listIssuers)
	route(a, open, http.MethodGet, "/issuers/{issuer}", "getIssuer", "Issuers", "Show an issuer", a.getIssuer)
	route(a, open, http.MethodGet, "/issuers/{issuer}/certificate.pem", "getIssuerPEM", "Issuers", "The issuer's certificate, PEM", a.getIssuerPEM)
	route(a, open, http.MethodGet, "/issuers/{issuer}/certificate.cer", "getIssuerDER", "Issuers", "The issuer's certificate, DER", a.getIssuerDER)
	route(a, open, http.MethodGet, "/issuers/{issuer}/chain.pem", "getIssuerChain", "Issuers", "The issuer's chain up to the root, PEM", a.getIssuerChain)
	route(a, readAll, http.MethodGet, "/crls", "listCRLs", "Issuers", "How the publication of every CRL stands", a.listCRLs)
	route(a, open, http.MethodGet, "/roots.pem", "getRoots", "Issuers", "The trust anchors, PEM", a.getRoots)
	route(a, open, http.MethodGet, "/client-ca.pem", "getClientCA", "Issuers", "What servers need to check client certificates: live intermediates and roots, PEM", a.getClientCA)
	route(a, readAll, http.MethodGet, "/issuers/{issuer}/settings", "getIssuerSettings", "Issuers", "Show the settings of an issuer: how its CRLs and OCSP answers are made", a.getIssuerSettings)
	route(a, administrate, http.MethodPut, "/issuers/{issuer}/settings", "putIssuerSettings", "Issuers", "Change the settings of an issuer", a.putIssuerSettings)
	route(a, readAll, http.MethodPost, "/issuers/{issuer}/settings/check", "checkIssuerSettings", "Issuers", "Check settings, and compare them with those in force; changes nothing", a.checkIssuerSettings)
	route(a, readAll, http.MethodGet, "/issuers/{issuer}/settings/history", "listIssuerSettings", "Issuers", "List the versions of an issuer's settings, newest first", a.listIssuerSettings)
	route(a, readAll, http.MethodGet, "/issuers/{issuer}/settings/versions/{version}", "getIssuerSettingsVersion", "Issuers", "Show a version of an issuer's settings", a.getIssuerSettingsVersion)
	route(a, readOwn, http.MethodGet, "/issuers/{issuer}/certificates/{serial}", "getCertificateBySerial", "Certificates", "Show a certificate by issuer and serial number", a.getCertificateBySerial)

	route(a, enroll, http.MethodPost, "/certificates", "issueCertificate", "Certificates", "Issue a certificate from a CSR", a.issue)
	route(a, handOutKey, http.MethodPost, "/certificates/with-key", "issueCertificateWithKey", "Certificates", "Make a key, issue a certificate for it, and hand out both, once", a.issueWithKey)
	route(a, readOwn, http.MethodGet, "/certificates", "listCertificates", "Certificates", "List and search certificates, newest first", a.listCertificates)
	route(a, readOwn, http.MethodGet, "/certificates/export", "exportCertificates", "Certificates", "Stream all certificates that match, newest first, as CSV or JSON lines", a.exportCertificates)
	route(a, readOwn, http.MethodGet, "/certificates/{id}", "getCertificate", "Certificates", "Show a certificate", a.getCertificate)
	route(a, readOwn, http.MethodGet, "/certificates/{id}/download", "downloadCertificate", "Certificates", "Download a certificate as PEM, DER or with its chain", a.downloadCertificate)
	route(a, operate, http.MethodPost, "/certificates/{id}/renew", "renewCertificate", "Certificates", "Renew a certificate, with its key or with a new one", a.renew)
	route(a, operate, http.MethodPost, "/certificates/{id}/revoke", "revokeCertificate", "Certificates", "Revoke a certificate for good", a.revoke)
	route(a, operate, http.MethodPost, "/certificates/{id}/hold", "holdCertificate", "Certificates", "Put a certificate on hold", a.hold)
	route(a, operate, http.MethodPost, "/certificates/{id}/release", "releaseCertificate", "Certificates", "Release a certificate from hold", a.release)

	route(a, operate, http.MethodPost, "/revocations/dry-run", "planRevocation", "Revocations", "Count and show what a query would revoke; changes nothing", a.planRevocation)
	route(a, operate, http.MethodPost, "/revocations", "beginRevocation", "Revocations", "Revoke everything that a query finds, in the background", a.beginRevocation)
	route(a, readAll, http.MethodGet, "/revocations", "listRevocations", "Revocations", "List the campaigns that revoke many certificates, newest first", a.listRevocations)
	route(a, readAll, http.MethodGet, "/revocations/{id}", "getRevocation", "Revocations", "Show how far a campaign is", a.getRevocation)
	route(a, operate, http.MethodPost, "/revocations/{id}/pause", "pauseRevocation", "Revocations", "Pause a campaign", a.setRevocation(store.CampaignPaused))
	route(a, operate, http.MethodPost, "/revocations/{id}/resume", "resumeRevocation", "Revocations", "Have a paused campaign go on", a.setRevocation(store.CampaignRunning))
	route(a, operate, http.MethodPost, "/revocations/{id}/cancel", "cancelRevocation", "Revocations", "End a campaign; what it has revoked stays revoked", a.setRevocation(store.CampaignCancelled))

	route(a, readAll, http.MethodGet, "/blocked-keys", "listBlockedKeys", "Revocations", "List the public keys that are refused", a.listBlockedKeys)
	route(a, operate, http.MethodPost, "/blocked-keys/dry-run", "planKeyBlock", "Revocations", "Count and show what blocking a key would revoke; changes nothing", a.planKeyBlock)
	route(a, operate, http.MethodPost, "/blocked-keys", "blockKey", "Revocations", "Block a compromised key in every protocol, and revoke every certificate for it", a.blockKey)
	route(a, administrate, http.MethodDelete, "/blocked-keys/{spki_sha256}", "unblockKey", "Revocations", "Admit a public key again; revoked certificates stay revoked", a.unblockKey)

	route(a, readOwn, http.MethodGet, "/profiles", "listProfiles", "Profiles", "List the profiles", a.listProfiles)
	route(a, readOwn, http.MethodGet, "/profiles/{profile}", "getProfile", "Profiles", "Show a profile with its configuration", a.getProfile)
	route(a, readAll, http.MethodGet, "/profiles/{profile}/history", "listProfileVersions", "Profiles", "List the versions of a profile, newest first", a.listProfileVersions)
	route(a, readAll, http.MethodGet, "/profiles/{profile}/versions/{version}", "getProfileVersion", "Profiles", "Show a version of a profile with its configuration", a.getProfileVersion)
	route(a, administrate, http.MethodPost, "/profiles", "createProfile", "Profiles", "Create a profile", a.createProfile)
	route(a, administrate, http.MethodPut, "/profiles/{profile}", "putProfile", "Profiles", "Change a profile, or create it", a.putProfile)
	route(a, readAll, http.MethodPost, "/profiles/check", "checkProfile", "Profiles", "Check a configuration, and compare it with the profile in force; changes nothing", a.checkProfile)
	route(a, enroll, http.MethodPost, "/profiles/{profile}/dry-run", "dryRunProfile", "Profiles", "Show the certificate that a CSR would get; issues nothing", a.dryRunProfile)

	route(a, readAll, http.MethodGet, "/scep/points", "listEnrollmentPoints", "Enrollment", "List the enrollment points", a.listPoints)
	route(a, readAll, http.MethodGet, "/scep/points/{point}", "getEnrollmentPoint", "Enrollment", "Show an enrollment point with its settings", a.getPoint)
	route(a, readAll, http.MethodGet, "/scep/points/{point}/history", "listEnrollmentPointVersions", "Enrollment", "List the versions of an enrollment point, newest first", a.listPointVersions)
	route(a, readAll, http.MethodGet, "/scep/points/{point}/versions/{version}", "getEnrollmentPointVersion", "Enrollment", "Show a version of an enrollment point's settings", a.getPointVersion)
	route(a, readAll, http.MethodPost, "/scep/points/check", "checkEnrollmentPoint", "Enrollment", "Check settings, and compare them with those in force; changes nothing", a.checkPoint)
	route(a, administrate, http.MethodPut, "/scep/points/{point}", "putEnrollmentPoint", "Enrollment", "Change an enrollment point, or create it", a.putPoint)
	route(a, administrate, http.MethodPost, "/scep/points/{point}/webhook-secret", "newWebhookSecret", "Enrollment", "Make a new secret for the webhook of an enrollment point", a.putWebhookSecret)
	route(a, administrate, http.MethodPost, "/issuers/{issuer}/ra/rotate", "rotateRA", "Enrollment", "Give the RA of an issuer a new key", a.rotateRA)
	route(a, readAll, http.MethodGet, "/challenges", "listChallenges", "Enrollment", "List one-time challenges, newest first", a.listChallenges)
	route(a, handOutKey, http.MethodPost, "/challenges", "createChallenge", "Enrollment", "Create a one-time challenge; its text is shown once", a.createChallenge)
	route(a, handOutKey, http.MethodPost, "/challenges/bulk", "createChallenges", "Enrollment", "Create up to 1000 one-time challenges; their texts are shown once", a.createChallenges)
	route(a, operate, http.MethodPost, "/challenges/revoke", "revokeChallenges", "Enrollment", "Revoke every one-time challenge of a batch, a device or an enrollment point that was not used", a.revokeChallenges)
	route(a, operate, http.MethodDelete, "/challenges/{id}", "revokeChallenge", "Enrollment", "Revoke a one-time challenge", a.revokeChallenge)
	route(a, readAll, http.MethodGet, "/enrollments", "listEnrollments", "Enrollment", "List requests that wait, or have waited, for a person, newest first", a.listEnrollments)
	route(a, readAll, http.MethodGet, "/enrollments/{id}", "getEnrollment", "Enrollment", "Show a request that waits, or has waited, for a person", a.getEnrollment)
	route(a, operate, http.MethodPost, "/enrollments/decide", "decideEnrollments", "Enrollment", "Approve or deny up to 500 requests, each by itself", a.decideEnrollments)
	route(a, operate, http.MethodPost, "/enrollments/{id}/approve", "approveEnrollment", "Enrollment", "Approve a request: its certificate is issued", a.approveEnrollment)
	route(a, operate, http.MethodPost, "/enrollments/{id}/deny", "denyEnrollment", "Enrollment", "Deny a request", a.denyEnrollment)

	route(a, readAll, http.MethodGet, "/devices", "listDevices", "Devices", "List and search devices, in the order of their ids", a.listDevices)
	route(a, operate, http.MethodPost, "/devices", "createDevice", "Devices", "Register a device", a.createDevice)
	route(a, readAll, http.MethodGet, "/devices/{id}", "getDevice", "Devices", "Show a device", a.getDevice)
	route(a, operate, http.MethodPut, "/devices/{id}", "putDevice", "Devices", "Change what is said of a device", a.putDevice)
	route(a, operate, http.MethodPost, "/devices/{id}/block", "blockDevice", "Devices", "Block a device: nothing is issued to it any more, and its certificates are revoked", a.blockDevice)
	route(a, operate, http.MethodPost, "/devices/{id}/unblock", "unblockDevice", "Devices", "Put a device that is blocked or retired back into use; its certificates stay revoked", a.unblockDevice)
	route(a, operate, http.MethodPost, "/devices/{id}/retire", "retireDevice", "Devices", "Take a device out of use: nothing is issued to it any more, and its certificates are revoked", a.retireDevice)
	route(a, readAll, http.MethodGet, "/fleet", "getFleet", "Devices", "Figures about all devices by group and status, and how many requests were refused", a.getFleet)
	route(a, readAll, http.MethodGet, "/fleet/export", "exportDevices", "Devices", "Stream all devices that match, in the order of their ids, as CSV or JSON lines", a.exportDevices)
	route(a, operate, http.MethodPost, "/fleet/import", "importDevices", "Devices", "Register up to 1000 devices, all or none", a.importDevices)

	route(a, administrate, http.MethodGet, "/tokens", "listTokens", "Tokens", "List the API tokens", a.listTokens)
	route(a, administrate, http.MethodPost, "/tokens", "createToken", "Tokens", "Create an API token; its text is shown once", a.createToken)
	route(a, administrate, http.MethodDelete, "/tokens/{id}", "revokeToken", "Tokens", "Revoke an API token", a.revokeToken)
	route(a, readOwn, http.MethodGet, "/whoami", "whoAmI", "Tokens", "Who the token says you are, and what you may", a.whoAmI)

	route(a, readAll, http.MethodGet, "/audit", "listAudit", "Audit", "List audit events, newest first", a.listAudit)
	route(a, readAll, http.MethodGet, "/audit/follow", "followAudit", "Audit", "Stream audit events as they happen, oldest first, as JSON lines", a.followAudit)
	route(a, readAll, http.MethodGet, "/audit/verify", "verifyAudit", "Audit", "Walk the whole chain of audit records and tell whether it is whole", a.verifyAudit)

	route(a, self, http.MethodGet, "/self", "getSelf", "Self-service", "Show the certificate that you present (mTLS listener)", a.getSelf)
	route(a, self, http.MethodPost, "/self/renew", "renewSelf", "Self-service", "Renew the certificate that you present (mTLS listener)", a.renewSelf)
	route(a, self, http.MethodPost, "/self/revoke", "revokeSelf", "Self-service", "Revoke the certificate that you present (mTLS listener)", a.revokeSelf)
}

// New returns the API's handler, to be mounted at Root, and its OpenAPI description in YAML.
func New(cfg Config) (http.Handler, []byte, error) {
	if cfg.Store == nil || cfg.CA == nil || cfg.Issuers == nil || cfg.CRLs == nil || cfg.Campaigns == nil || cfg.Tokens == nil || cfg.Sync == nil || cfg.Now == nil || cfg.Clock == nil || cfg.Age == nil || cfg.Metrics == nil ||
		cfg.Points == nil || cfg.Enrollments == nil || cfg.Decisions == nil || cfg.RAs == nil || cfg.Devices == nil {
		return nil, nil, errors.New("rest: incomplete config")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.heartbeat == 0 {
		cfg.heartbeat = heartbeatEvery
	}
	if err := cfg.Limits.complete(); err != nil {
		return nil, nil, err
	}
	renameHumaErr.Do(replaceHumaErrors)
	r := chi.NewRouter()
	a := &api{
		Config: cfg, huma: humachi.New(r, humaConfig()), searches: newTurns(cfg.Limits.Searches, cfg.Limits.Wait), walks: newTurns(maxWalks, cfg.Limits.Wait),
		exports: newTurns(cfg.Limits.Exports, cfg.Limits.Wait), keyMaking: newTurns(cfg.Limits.KeyMaking, cfg.Limits.Wait), followers: newTurns(cfg.Limits.Followers, cfg.Limits.Wait),
		limits: newLimits(cfg.Limits, cfg.Now),
	}
	a.routes()
	completeDocument(a.huma.OpenAPI())
	doc, err := a.huma.OpenAPI().YAML()
	if err != nil {
		return nil, nil, err
	}
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		// The client may be gone; there is nobody else to tell.
		_, _ = w.Write(doc)
	})
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		a.fail(r.Context(), fault.New(fault.NotFound, "there is nothing at this address").WithHint("the API is described at %s/openapi.yaml", Root)).Write(w)
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		d := a.fail(req.Context(), fault.New(fault.BadRequest, "this address does not take %s", req.Method))
		d.Status = http.StatusMethodNotAllowed
		w.Header().Set("Allow", AllowedMethods(r, strings.TrimPrefix(req.URL.Path, Root)))
		d.Write(w)
	})
	return r, doc, nil
}

// AllowedMethods returns what the header Allow says of a path (RFC 9110, Section 10.2.1): empty if it takes no method.
func AllowedMethods(routes chi.Routes, path string) string {
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return strings.Join(methods, ", ")
}

func humaConfig() huma.Config {
	c := huma.DefaultConfig("Certwright", "1")
	c.Info.Description = "Private certificate authority: issue, find, revoke and hold certificates. Authenticate with an API token as «Authorization: Bearer cwt_...»; the self-service routes take a client certificate on the mTLS listener instead. Errors are problem documents (RFC 9457)."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.Servers = []*huma.Server{{URL: Root}}
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil // no $schema in bodies
	c.RejectUnknownQueryParameters = true
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":       {Type: "http", Scheme: "bearer", Description: "API token"},
		"certificate": {Type: "mutualTLS", Description: "Client certificate of one of our issuers, on the mTLS listener"},
	}
	return c
}

// replaceHumaErrors has the library's own refusals speak as problem documents that never repeat the offending value,
// which may be a secret. The library keeps its constructors in variables of its own, so this is done once.
func replaceHumaErrors() {
	// "Profile" beside "profile" would be two requests in one: which is read depends on their order.
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false // a list is empty, not null
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		e := huma.NewError(status, msg, errs...)
		if d, ok := errors.AsType[*problem.Document](e); ok && ctx != nil {
			d.RequestID = problem.RequestID(ctx.Context())
		}
		return e
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		kind := fault.BadRequest
		if msg == "cannot read request body" { // broken chunks, or a client that went away: none of our faults
			status = http.StatusBadRequest
		}
		if status >= http.StatusInternalServerError {
			kind = fault.Internal
		}
		d := problem.Of(fault.New(kind, "%s", msg))
		if kind == fault.BadRequest {
			d.Status = status
			for _, err := range errs {
				if detail, ok := errors.AsType[*huma.ErrorDetail](err); ok {
					d.Errors = append(d.Errors, problem.Error{Location: detail.Location, Message: detail.Message})
				}
			}
		}
		return d
	}
}

// shown returns a page of the store as clients see it; empty is no null.
func shown[T, V any](page []T, show func(T) V) []V {
	out := make([]V, len(page))
	for i, v := range page {
		out[i] = show(v)
	}
	return out
}

// oneLine refuses a text of a field that has control characters.
func oneLine(field, text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.BadRequest, "it has a control character").WithField(field)
	}
	return nil
}

// maxBulkBytes is the longest body of a request that makes a thousand things.
const maxBulkBytes = 2 << 20

// route registers one row of the table. Who asks is settled before anything of the request is read.
func route[I, O any](a *api, acc access, method, path, id, tag, summary string, handler func(context.Context, *I) (*O, error)) {
	op := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag},
		MaxBodyBytes: a.Limits.BodyBytes, BodyReadTimeout: bodyReadTimeout,
		Errors:   []int{http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusServiceUnavailable},
		Metadata: map[string]any{"access": acc},
	}
	switch {
	case acc == open:
		op.Description = "Open to everybody."
	case acc.self:
		op.Security = []map[string][]string{{"certificate": {}}}
		op.Description = "Takes a client certificate of one of our issuers."
	case acc.role != pki.RoleNone:
		op.Security = []map[string][]string{{"token": {}}}
		op.Description = "Takes the role " + acc.role.String() + " or a higher one."
		if acc.own {
			op.Description += " An enroller sees what it issued."
		} else if acc.role == pki.RoleAuditor {
			op.Description += " An enroller may not."
		}
		if acc.tls {
			op.Description += " Over TLS only."
		}
	}
	if acc != open {
		op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	}
	if strings.Contains(path, "{") || method == http.MethodPost || slices.Contains([]string{"listCertificates", "exportCertificates", "listCRLs"}, id) {
		op.Errors = append(op.Errors, http.StatusNotFound) // also an issuer or a profile that a request names
	}
	if method != http.MethodGet || id == "followAudit" {
		op.Errors = append(op.Errors, http.StatusConflict)
	}
	if method == http.MethodPost || method == http.MethodPut {
		op.Errors = append(op.Errors, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	switch id {
	case "createProfile", "createToken", "createDevice", "createChallenge", "beginRevocation", "blockKey", "issueCertificate", "issueCertificateWithKey", "renewCertificate", "renewSelf":
		op.DefaultStatus = http.StatusCreated
	}
	switch id {
	case "createProfile", "putProfile", "checkProfile", "putIssuerSettings", "checkIssuerSettings":
		op.SkipValidateBody = true // packages profile and settings read it, and names fields as configurations do
	}
	switch id {
	case "putProfile", "putIssuerSettings", "putEnrollmentPoint", "putDevice":
		op.Errors = append(op.Errors, http.StatusPreconditionFailed, http.StatusPreconditionRequired)
	case "blockDevice", "unblockDevice", "retireDevice":
		op.Errors = append(op.Errors, http.StatusPreconditionFailed)
	}
	switch id {
	case "renewCertificate", "revokeCertificate", "renewSelf", "revokeSelf", "denyEnrollment", "blockDevice", "retireDevice":
		// Nothing in the body has to be there, so the body itself need not be. huma makes it required, and looks at it here.
		op.RequestBody = &huma.RequestBody{}
		defer func() { op.RequestBody.Required = false }()
	}
	repeatable := false
	switch id {
	case "issueCertificate", "issueCertificateWithKey", "renewCertificate", "renewSelf":
		repeatable = true
	}
	limit := requestTimeout
	switch id {
	case "verifyAudit":
		limit = walkTimeout
	case "exportCertificates", "exportDevices", "followAudit":
		limit = 0 // streams: each of their steps is bounded
	}
	if id == "createChallenges" || id == "importDevices" {
		op.MaxBodyBytes = max(op.MaxBodyBytes, maxBulkBytes)
	}
	op.Responses = files(id)
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		if limit != 0 {
			bounded, cancel := context.WithTimeout(ctx.Context(), limit)
			defer cancel()
			ctx = huma.WithContext(ctx, bounded)
		}
		r, w := humachi.Unwrap(ctx)
		p, err := a.admit(ctx, acc)
		if e := a.limits.spend(acc, p, sourceOf(r), err); e != nil {
			err = e
		}
		if err != nil {
			a.fail(r.Context(), err).Write(w)
			return
		}
		inner := withPrincipal(ctx.Context(), p)
		if repeatable {
			inner = withAsked(inner, r)
		}
		next(huma.WithContext(ctx, inner))
	}}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, a.fail(ctx, err)
		}
		return out, nil
	})
}

// admit tells who asks and refuses who may not.
func (a *api) admit(ctx huma.Context, acc access) (pki.Principal, error) {
	r, _ := humachi.Unwrap(ctx)
	source := sourceOf(r)
	if acc.self {
		p, err := a.holder(ctx.Context(), r)
		p.Source = source
		return p, err
	}
	if acc == open {
		return pki.Principal{Source: source}, nil
	}
	var p pki.Principal
	var err error
	header := r.Header.Get("Authorization")
	if scheme, text, _ := strings.Cut(header, " "); strings.EqualFold(scheme, "Bearer") {
		if a.Age() > maxTokenAge {
			return p, fault.New(fault.Unavailable, "the server has not heard of its store for a while, and cannot tell whether the token still holds")
		}
		if p, err = a.Tokens.Authenticate(strings.TrimSpace(text)); err != nil {
			return p, err
		}
	} else if header != "" {
		return p, fault.New(fault.Unauthenticated, "this kind of authorization is not understood").
			WithHint("send an API token as «Authorization: Bearer cwt_...»")
	}
	p.Source = source
	if err := auth.Require(p, acc.role, acc.own); err != nil {
		return p, err
	}
	if acc.tls && r.TLS == nil {
		return p, fault.New(fault.BadRequest, "the answer holds a private key or a challenge: over TLS only")
	}
	return p, nil
}

// sourceOf returns the network address of a request, without the port.
func sourceOf(r *http.Request) string {
	source, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return source
}

type principalKey struct{}

func withPrincipal(ctx context.Context, p pki.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// principal returns who asks. The zero value, which may do nothing, if the route let nobody in.
func principal(ctx context.Context) pki.Principal {
	p, _ := ctx.Value(principalKey{}).(pki.Principal)
	return p
}

// fail turns an error into what the client may know of it. What is our fault is logged here, once, with its causes.
func (a *api) fail(ctx context.Context, err error) *problem.Document {
	d := problem.Of(err)
	d.RequestID = problem.RequestID(ctx)
	if p, ok := errors.AsType[*precondition](err); ok {
		d.Status = p.status
	}
	if e, ok := errors.AsType[*existing](err); ok {
		d.Location = e.location
	}
	if e, ok := errors.AsType[*wrongRows](err); ok {
		e.describe(d)
	}
	switch fault.KindOf(err) {
	case fault.Internal:
		if !errors.Is(ctx.Err(), context.Canceled) { // by a client that went away
			a.Logger.ErrorContext(ctx, "a request failed", "request_id", d.RequestID, "err", err)
		}
	case fault.Unavailable:
		a.Logger.WarnContext(ctx, "a request could not be served now", "request_id", d.RequestID, "err", err)
	}
	return d
}
