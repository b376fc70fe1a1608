package ca

import "time"

// carriedUntil returns the Until of an address that is in a certificate which ends at the given time: the beginning of the
// month after the next, so that not every certificate that ends a little later asks for a new record.
func carriedUntil(notAfter time.Time) time.Time {
	y, m, _ := notAfter.UTC().Date()
	next := time.Date(y, m+2, 1, 0, 0, 0, 0, time.UTC)
	if last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC); next.After(last) {
		return last // no certificate ends later (RFC 5280, Section 4.1.2.5)
	}
	return next
}
