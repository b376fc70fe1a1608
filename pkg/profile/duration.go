package profile

import "github.com/certwright/certwright/pkg/document"

// Duration is a duration in text form, as in "90d" or "1y".
type Duration = document.Duration

const (
	day  = document.Day
	year = document.Year
)

// ParseDuration reads the text form; see [document.ParseDuration].
func ParseDuration(text string) (Duration, error) { return document.ParseDuration(text) }
