package server

import (
	"time"

	"github.com/certwright/certwright/pkg/config"
	"github.com/certwright/certwright/pkg/rest"
)

// limitsOf hands the settings on. What is not set is zero in both.
func limitsOf(c config.Limits) rest.Limits {
	rate := func(r config.Rate) rest.Limit {
		perSecond, burst := r.Limit()
		return rest.Limit{PerSecond: perSecond, Burst: burst}
	}
	return rest.Limits{
		Token: rate(c.Token), Holder: rate(c.Holder), Source: rate(c.Source),
		Searches: int(c.Searches), Exports: int(c.Exports), Followers: int(c.Followers), KeyMaking: int(c.KeyMaking),
		Wait: time.Duration(c.Wait), BodyBytes: int64(c.BodyBytes),
	}
}
