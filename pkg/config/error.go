package config

import (
	"fmt"
	"strings"
)

// Error says what is wrong with one setting.
type Error struct {
	Key    string // the setting, as in "crl.interval"; empty when there is no such setting
	Where  string // where the value stands: "FILE: line 3", or a variable of the environment; empty when that is not known
	Flag   bool   // the value came from apply, which is to say a flag
	Detail string
	Hint   string // may be empty
}

// Error returns one line. A variable's name says which setting it is.
func (e *Error) Error() string {
	var parts []string
	if e.Where != "" {
		parts = append(parts, e.Where)
	}
	if e.Key != "" && !strings.HasPrefix(e.Where, EnvPrefix) {
		parts = append(parts, e.Key)
	}
	return strings.Join(append(parts, e.Detail), ": ")
}

func wrong(key, format string, args ...any) *Error {
	return &Error{Key: key, Detail: fmt.Sprintf(format, args...)}
}

// sources says where the settings have their values from, by key.
type sources map[string]source

type source struct {
	where string
	flag  bool
}

// didYouMean is the hint for a name that does not exist: those of the known ones whose last part it is, else the one that
// is a few letters away. It is empty when there is none.
func didYouMean(name string, known []string) string {
	var ends []string
	best, least := "", max(1, len(name)/3)+1
	for _, k := range known {
		if strings.HasSuffix(k, "."+name) || strings.HasSuffix(k, "_"+name) {
			ends = append(ends, k)
		}
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	switch {
	case len(ends) > 0:
		return "did you mean " + strings.Join(ends, " or ") + "?"
	case best != "":
		return "did you mean " + best + "?"
	}
	return ""
}

// distance counts the letters to add, leave out, replace or swap with their neighbour.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			switch {
			case i == 0 || j == 0:
				rows[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				rows[i][j] = rows[i-1][j-1]
				continue
			}
			rows[i][j] = 1 + min(rows[i-1][j], rows[i][j-1], rows[i-1][j-1])
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], 1+rows[i-2][j-2])
			}
		}
	}
	return rows[len(a)][len(b)]
}
