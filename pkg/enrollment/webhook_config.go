package enrollment

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/profile"
)

// WebhookRules are another system that decides on requests, or is told of them.
type WebhookRules struct {
	// URL is its address: https, without user or fragment.
	URL string `json:"url"`
	// When is which requests it decides on: "webhook" (default), those whose challenge is neither one-time nor static; or
	// "always", all that the point would serve.
	When WebhookWhen `json:"when,omitempty"`
	// Timeout is how long it may take to decide: 100ms to 30s. Default: 5s.
	Timeout profile.Duration `json:"timeout,omitzero"`
	// Retries is how often it is asked again within Timeout: 0 to 5. Default: 2.
	Retries *int `json:"retries,omitempty"`
	// Allow are networks (10.1.0.0/16) and host names whose addresses may be private. Default: none may.
	Allow []string `json:"allow,omitempty"`
	// CA holds the trust anchors of its TLS certificate, in PEM. Default: those of the system.
	CA string `json:"ca,omitempty"`
	// Notify is what it is told of afterwards: "success", "failure". Default: nothing.
	Notify []WebhookEvent `json:"notify,omitempty"`
}

// WebhookWhen is which requests a webhook decides on.
type WebhookWhen string

// Which requests a webhook decides on. The empty one is WhenWebhook.
const (
	WhenWebhook WebhookWhen = "webhook"
	WhenAlways  WebhookWhen = "always"
)

// WebhookEvent is what a webhook is told of.
type WebhookEvent string

// What a webhook is told of.
const (
	NotifySuccess WebhookEvent = "success" // a certificate was issued
	NotifyFailure WebhookEvent = "failure" // a request was refused
)

// Defaults and bounds of webhooks.
const (
	defaultWebhookTimeout = profile.Duration(5 * time.Second)
	minWebhookTimeout     = profile.Duration(100 * time.Millisecond)
	maxWebhookTimeout     = profile.Duration(30 * time.Second)
	defaultWebhookRetries = 2
	maxWebhookRetries     = 5
	maxWebhookURL         = 2000
	maxWebhookAllow       = 50
)

func (w WebhookRules) withDefaults() WebhookRules {
	w.When, w.Timeout = orDefault(w.When, WhenWebhook), orDefault(w.Timeout, defaultWebhookTimeout)
	if w.Retries == nil {
		w.Retries = new(defaultWebhookRetries)
	}
	return w
}

// Anchors returns the certificates of CA; none when it is empty.
func (w WebhookRules) Anchors() ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	rest := []byte(w.CA)
	for len(strings.TrimSpace(string(rest))) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("something that is no certificate in PEM")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read", len(list)+1)
		}
		list = append(list, c)
	}
	return list, nil
}

// Allows reports whether a private address of a host may be called.
func (w WebhookRules) Allows(host string, address netip.Addr) bool {
	return slices.ContainsFunc(w.Allow, func(entry string) bool {
		if p, err := netip.ParsePrefix(entry); err == nil {
			return p.Contains(address.Unmap())
		}
		return strings.EqualFold(entry, host)
	})
}

func (c *Config) validateWebhook() error {
	w := c.Webhook
	if w == nil {
		if slices.Contains(c.Challenges, ChallengeWebhook) {
			return bad("challenges", "there is no webhook that would know such challenges: set webhook.url")
		}
		return nil
	}
	u, err := url.Parse(w.URL)
	switch {
	case len(w.URL) > maxWebhookURL:
		return bad("webhook.url", "it has more than %d octets", maxWebhookURL)
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return bad("webhook.url", "it is an address that begins with https://")
	case u.User != nil || u.Fragment != "" || strings.Contains(w.URL, "#"):
		return bad("webhook.url", "it has no user and no fragment: the webhook knows us by the signature of what we send")
	case w.Timeout != 0 && (w.Timeout < minWebhookTimeout || w.Timeout > maxWebhookTimeout):
		return bad("webhook.timeout", "it is %s to %s", minWebhookTimeout, maxWebhookTimeout)
	case w.Retries != nil && (*w.Retries < 0 || *w.Retries > maxWebhookRetries):
		return bad("webhook.retries", "it is 0 to %d", maxWebhookRetries)
	case len(w.Allow) > maxWebhookAllow:
		return bad("webhook.allow", "it has more than %d entries", maxWebhookAllow)
	}
	for i, entry := range w.Allow {
		p, err := netip.ParsePrefix(entry)
		switch {
		case strings.Contains(entry, "/") && err != nil || err == nil && p != p.Masked():
			return bad(fmt.Sprintf("webhook.allow[%d]", i), "it is no network such as 10.1.0.0/16")
		case err != nil && (entry == "" || len(entry) > 253 || strings.ContainsAny(entry, " :*@")):
			return bad(fmt.Sprintf("webhook.allow[%d]", i), "it is a host name, or a network such as 10.1.0.0/16")
		}
	}
	if _, err := w.Anchors(); err != nil {
		return bad("webhook.ca", "it holds %v", err)
	}
	if err := oneOf("webhook.when", w.When, WhenWebhook, WhenAlways); err != nil {
		return err
	}
	for i, e := range w.Notify {
		field := fmt.Sprintf("webhook.notify[%d]", i)
		if err := oneOf(field, e, NotifySuccess, NotifyFailure); err != nil {
			return err
		}
		if e == "" || slices.Contains(w.Notify[:i], e) {
			return bad(field, "each stands there once")
		}
	}
	if w.When != WhenAlways && !slices.Contains(c.Challenges, ChallengeWebhook) && len(w.Notify) == 0 {
		return bad("webhook", "it would do nothing: add %s to challenges, set webhook.when to %s, or name what to notify it of", ChallengeWebhook, WhenAlways)
	}
	return nil
}
