package enrollment

import (
	"context"

	"github.com/certwright/certwright/pkg/pki"
)

// RenderConfig is [Point.Render] for settings that no store has.
func RenderConfig(c Config, d pki.Device) (Binding, error) {
	n, err := parseNames(c.Subject, c.SANs)
	if err != nil {
		return Binding{}, err
	}
	return n.render(d)
}

// PointOf returns a point with these settings, which must be valid.
func PointOf(c Config) *Point {
	c.Name = orDefault(c.Name, DefaultPoint)
	n, err := parseNames(c.Subject, c.SANs)
	if err != nil {
		panic(err)
	}
	return &Point{config: c, names: n}
}

// Abandon is what Run does now and then.
func (n *Notifier) Abandon(ctx context.Context) {
	n.count(ctx)
	n.abandon(ctx)
}
