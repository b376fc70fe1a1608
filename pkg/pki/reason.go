package pki

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/fault"
)

// Reason is a CRLReason with the numbers of RFC 5280, Section 5.3.1. The zero value is unspecified, which CRLs leave
// out. The number 7 is not used.
type Reason int

// The reasons of RFC 5280, Section 5.3.1.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6
	RemoveFromCRL        Reason = 8 // appears in delta CRLs only; never an input
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

var reasonNames = map[Reason]string{
	Unspecified: "unspecified", KeyCompromise: "keyCompromise", CACompromise: "cACompromise",
	AffiliationChanged: "affiliationChanged", Superseded: "superseded",
	CessationOfOperation: "cessationOfOperation", CertificateHold: "certificateHold",
	RemoveFromCRL: "removeFromCRL", PrivilegeWithdrawn: "privilegeWithdrawn", AACompromise: "aACompromise",
}

// String returns the name the RFC gives the reason.
func (r Reason) String() string {
	if s, ok := reasonNames[r]; ok {
		return s
	}
	return fmt.Sprintf("reason(%d)", int(r))
}

// ParseReason reads the RFC's name in any letter case, with or without hyphens and underscores. The empty string is
// unspecified.
func ParseReason(s string) (Reason, error) {
	if s == "" {
		return Unspecified, nil
	}
	want := strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
	for r, name := range reasonNames {
		if strings.ToLower(name) == want {
			return r, nil
		}
	}
	return 0, fmt.Errorf("no revocation reason is called %q; there are %s", s, strings.Join(ReasonNames(), ", "))
}

// ReasonNames returns the names of the reasons that a person may give, in the order of their numbers. certificateHold
// and removeFromCRL are not among them: holding and releasing are acts of their own.
func ReasonNames() []string {
	var names []string
	for r := Unspecified; r <= AACompromise; r++ {
		if name, ok := reasonNames[r]; ok && r != CertificateHold && r != RemoveFromCRL {
			names = append(names, name)
		}
	}
	return names
}

// CheckReason refuses reasons that cannot be asked for in a revocation, with BadRevocationReason.
func CheckReason(r Reason) error {
	switch {
	case r == CertificateHold:
		return fault.New(fault.BadRevocationReason, "certificateHold is not a revocation: put the certificate on hold instead").WithField("reason")
	case r == RemoveFromCRL:
		return fault.New(fault.BadRevocationReason, "removeFromCRL is not a revocation: release the certificate instead").WithField("reason")
	case !slices.Contains(ReasonNames(), r.String()):
		return fault.New(fault.BadRevocationReason, "there is no revocation reason %d", int(r)).WithField("reason")
	}
	return nil
}

// earliestInvalidity is before any key that we may have certified, and well within what a CRL can carry.
var earliestInvalidity = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// CheckInvalidityDate refuses dates in the future and in the distant past, with BadRequest. The zero time is unknown, which
// is fine.
func CheckInvalidityDate(d, now time.Time) error {
	switch {
	case d.IsZero():
	case d.After(now):
		return fault.New(fault.BadRequest, "the invalidity date lies in the future").WithField("invalidity_date")
	case d.Before(earliestInvalidity):
		return fault.New(fault.BadRequest, "the invalidity date lies before the year %d", earliestInvalidity.Year()).WithField("invalidity_date")
	}
	return nil
}
