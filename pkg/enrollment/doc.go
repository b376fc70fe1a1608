// Package enrollment holds what lets a device in: enrollment points, the addresses at which devices enroll, with their
// settings; one-time challenges; and the static challenge that a point may have. The protocols' front-ends ask it who
// may have a certificate, and of which kind; what the certificate says is for package profile.
//
// Nothing is open by default: a point without a static challenge and without one-time challenges refuses everybody.
package enrollment
