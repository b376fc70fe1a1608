package document

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration whose text knows days and years: "90d", "1y", "1y30d", "36h", "5m". A day has 24 hours
// and a year 365 days. The zero value is "0s".
type Duration time.Duration

// Units that time.Duration does not know.
const (
	Day  = Duration(24 * time.Hour)
	Year = 365 * Day
)

// ErrDuration says that a text is no duration.
var ErrDuration = errors.New(`not a duration such as "90d", "1y", "36h" or "5m"`)

// ParseDuration reads the text form. Years and days, in this order, may stand before what time.ParseDuration reads. The
// error wraps ErrDuration.
func ParseDuration(text string) (Duration, error) {
	rest, total := text, Duration(0)
	for _, unit := range []struct {
		letter string
		length Duration
	}{{"y", Year}, {"d", Day}} {
		number, after, found := strings.Cut(rest, unit.letter)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || Duration(n) > (math.MaxInt64-total)/unit.length {
			return 0, fmt.Errorf("%q: %w", text, ErrDuration)
		}
		total += Duration(n) * unit.length
		rest = after
	}
	if rest == "" && text != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || total != 0 && d < 0 || Duration(d) > math.MaxInt64-total {
		return 0, fmt.Errorf("%q: %w", text, ErrDuration)
	}
	return total + Duration(d), nil
}

// String returns the shortest text form: whole years, whole days, or as time.Duration prints.
func (d Duration) String() string {
	switch {
	case d > 0 && d%Year == 0:
		return strconv.FormatInt(int64(d/Year), 10) + "y"
	case d > 0 && d%Day == 0:
		return strconv.FormatInt(int64(d/Day), 10) + "d"
	}
	return time.Duration(d).String()
}

// MarshalText returns String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
