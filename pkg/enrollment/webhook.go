package enrollment

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/webhook"
)

// A webhook's secret is kept sealed, as the JSON of a list: the newest first, with the older ones that still sign along.
type webhookSecret struct {
	Text  string    `json:"text"`
	Until time.Time `json:"until,omitzero"`
}

// NewWebhookSecret draws the text of a secret, which the receiver is to be given. It has 130 random bits.
func NewWebhookSecret() string { return "cwh_" + rand.Text() }

// maxWebhookSecrets bounds how many sign a message.
const maxWebhookSecrets = 4

// sealWebhookSecret seals a new secret with those before it that sign along until a time; none do when that is now.
func (p *Points) sealWebhookSecret(ctx context.Context, name, text string, now, until time.Time) ([]byte, error) {
	if text == "" {
		return []byte{}, nil
	}
	list := []webhookSecret{{Text: text}}
	if until.After(now) {
		before, err := p.webhookSecrets(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, s := range before {
			if s.Until.IsZero() || s.Until.After(until) {
				s.Until = until
			}
			if s.Until.After(now) && len(list) < maxWebhookSecrets {
				list = append(list, s)
			}
		}
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encoding the secret of a webhook: %w", err)
	}
	return p.cfg.Sealer.Seal(pki.SecretWebhook(name), b)
}

// webhookSecrets returns a point's secrets; none when it has none.
func (p *Points) webhookSecrets(ctx context.Context, name string) ([]webhookSecret, error) {
	sealed, err := p.cfg.Store.Secret(ctx, pki.SecretWebhook(name))
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := p.cfg.Sealer.Open(pki.SecretWebhook(name), sealed)
	if err != nil {
		return nil, fmt.Errorf("the secret of its webhook: %w", err)
	}
	var list []webhookSecret
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("the secret of its webhook: %w", err)
	}
	return list, nil
}

// hook returns the client of a point's webhook; nil if it has none, or no secret.
func (p *Points) hook(ctx context.Context, point *Point) (*webhook.Client, error) {
	rules := point.Webhook()
	if rules == nil {
		return nil, nil
	}
	secrets, err := p.webhookSecrets(ctx, point.Name())
	if err != nil || len(secrets) == 0 {
		return nil, err
	}
	anchors, err := rules.Anchors()
	if err != nil {
		return nil, err
	}
	cfg := webhook.Config{
		URL: rules.URL, Anchors: anchors, Allows: rules.Allows, Timeout: time.Duration(rules.Timeout), Retries: *rules.Retries,
	}
	for _, s := range secrets {
		cfg.Secrets = append(cfg.Secrets, webhook.Secret{Key: []byte(s.Text), Until: s.Until})
	}
	return webhook.New(cfg)
}

// HasWebhookSecret reports whether messages to the point's webhook can be authenticated. Without a secret none is sent.
func (p *Point) HasWebhookSecret() bool { return p.hook != nil }

// AskWebhook asks the point's webhook about a request. The error is a *webhook.Error, or a fault where there is nobody to ask;
// then nothing may be issued.
func (p *Point) AskWebhook(ctx context.Context, e webhook.Event) (webhook.Answer, error) {
	if p.hook == nil {
		return webhook.Answer{}, fault.New(fault.PolicyRefused, "the webhook of enrollment point %q has no secret", p.Name()).
			WithHint("make one with «certwright point webhook-secret %s»", p.Name())
	}
	e.Point = p.Name()
	return p.hook.Ask(ctx, e)
}

// Notification returns what the point's webhook is to be told of an event; nil when the point does not tell of its type.
// ID, Version and Point of the event are set here.
func (p *Point) Notification(now time.Time, e webhook.Event) (*pki.Notification, error) {
	rules := p.Webhook()
	if rules == nil || !slices.Contains(rules.Notify, WebhookEvent(e.Type)) {
		return nil, nil
	}
	e.ID, e.Point, e.Time = rand.Text()[:16], p.Name(), now
	body, err := webhook.Encode(e)
	if err != nil {
		return nil, err
	}
	return &pki.Notification{ID: e.ID, Point: e.Point, Body: body, CreatedAt: now, NextAt: now}, nil
}
