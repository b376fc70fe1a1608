package scep

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/crl"
	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/der"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/fault"
	"github.com/certwright/certwright/pkg/issuer"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// maxCRLBytes bounds the CRL that is encrypted for one device: who needs a longer one finds its address in every
// certificate.
const maxCRLBytes = 8 << 20

// certPoll answers CertPoll (RFC 8894, Section 4.4). The names in its IssuerAndSubject say nothing: the transactionID and
// the key that asked first do.
func (t *transaction) certPoll(messageData []byte, failure error) ([]byte, string, error) {
	body := cryptobyte.String(messageData)
	var names cryptobyte.String
	malformed := !body.ReadASN1(&names, cbasn1.SEQUENCE) || !body.Empty() ||
		!names.SkipASN1(cbasn1.SEQUENCE) || !names.SkipASN1(cbasn1.SEQUENCE) || !names.Empty()
	if failure == nil && malformed {
		failure = errors.New("the IssuerAndSubject of a CertPoll cannot be read")
	}
	if failure != nil {
		return nil, "", hidden(enrollment.ReasonChallenge, failure)
	}
	e, err := t.h.cfg.Store.EnrollmentBySigner(t.ctx, t.point.Name(), t.request.TransactionID, t.signerHash)
	if fault.Is(err, fault.NotFound) {
		return nil, "", absent(err, "no request of this key waits under this transactionID")
	}
	if err != nil {
		return nil, "", err
	}
	if err := t.served(e.Device); err != nil {
		return nil, "", err
	}
	switch {
	case !t.now.Before(e.ExpiresAt):
		return nil, "", refuse(enrollment.ReasonExpired, nil, "the request has waited too long; ask again")
	case e.State == pki.EnrollmentPending:
		return nil, "", errWaiting
	case e.State == pki.EnrollmentDenied:
		return nil, "", denied(e)
	}
	content, err := t.certificate(e.Issued)
	if err != nil {
		return nil, "", err
	}
	if content == nil {
		return nil, "", absent(nil, "the certificate of this request is not good any more")
	}
	if t.encrypts() {
		return content, "", nil
	}
	password, err := t.keptChallenge(e)
	return content, password, err
}

// keptChallenge returns the challenge of a request that has waited, for the answer to a key that cannot encrypt.
func (t *transaction) keptChallenge(e pki.Enrollment) (string, error) {
	if e.ID == "" || e.Challenge == "" {
		return "", refuse(enrollment.ReasonKey, nil, "the answer cannot be encrypted: the signing key is not RSA, and the request had no one-time challenge")
	}
	request, err := t.h.waiting(t.ctx, e)
	if err != nil {
		return "", err
	}
	return request.ChallengePassword.Reveal(), nil // octet for octet: the device has no other
}

// issuerAndSerial reads the messageData of GetCert and GetCRL (RFC 8894, Sections 3.3.4 and 3.3.5).
func issuerAndSerial(messageData []byte, failure error) (name []byte, serial pki.SerialNumber, err error) {
	body := cryptobyte.String(messageData)
	var both, n, i cryptobyte.String
	if ok := body.ReadASN1(&both, cbasn1.SEQUENCE) && body.Empty() && both.ReadASN1Element(&i, cbasn1.SEQUENCE) &&
		both.ReadASN1(&n, cbasn1.INTEGER) && both.Empty(); failure == nil && !ok {
		failure = errors.New("the IssuerAndSerialNumber cannot be read")
	}
	if failure != nil {
		return nil, "", hidden(enrollment.ReasonChallenge, failure)
	}
	if serial, err = pki.SerialNumberFromBytes(n); err != nil {
		return nil, "", absent(err, "there is no certificate with this serial number")
	}
	return i, serial, nil
}

// keyNamed returns the key of the point's issuer that a name is of: the CA's name, as behind an RA too.
func (t *transaction) keyNamed(name []byte) *issuer.Key {
	for _, k := range t.issuer.Keys {
		if cms.EqualNames(k.Certificate.RawSubject, name) {
			return k
		}
	}
	return nil
}

// keyAbove is keyNamed for the CAs above the point's issuer: whose CRLs tell of it.
func (t *transaction) keyAbove(name []byte) *issuer.Key {
	for k := t.issuer.Current; k.Parent != nil && k.Parent != k; {
		if k = k.Parent; cms.EqualNames(k.Certificate.RawSubject, name) {
			return k
		}
	}
	return nil
}

// getCert answers GetCert (RFC 8894, Section 4.5): a certificate of the signer's own key, or of its device.
func (t *transaction) getCert(messageData []byte, failure error) ([]byte, error) {
	name, serial, err := issuerAndSerial(messageData, failure)
	if err != nil {
		return nil, err
	}
	// One text for all: who asks for what is not his does not learn whether it is there.
	none := absent(nil, "you have no certificate with this issuer and serial number")
	if t.keyNamed(name) == nil || !t.encrypts() {
		return nil, none
	}
	c, err := t.h.cfg.Store.CertificateBySerial(t.ctx, t.issuer.ID, serial)
	if fault.Is(err, fault.NotFound) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	own := c.SPKIHash == t.signerHash
	ofDevice := t.own != nil && t.own.Revocation == nil && t.own.Device != "" && t.own.Device == c.Device && t.own.IssuerID == c.IssuerID
	if !own && !ofDevice || len(c.DER) == 0 {
		return nil, none
	}
	return cms.CertificatesOnly(c.DER), nil
}

// getCRL answers GetCRL (RFC 8894, Section 4.6): the newest one of the CA that issued the certificate, which may be the
// issuer's own. It is public.
func (t *transaction) getCRL(messageData []byte, failure error) ([]byte, error) {
	name, _, err := issuerAndSerial(messageData, failure)
	if err != nil {
		return nil, err
	}
	key := t.keyNamed(name)
	switch {
	case key == nil:
		if key = t.keyAbove(name); key == nil {
			return nil, absent(nil, "this enrollment point has no CRL of this issuer")
		}
	case cms.EqualNames(name, t.issuer.Current.Certificate.RawSubject):
		key = t.issuer.Current
	}
	published, ok := t.h.cfg.CRLs.Latest(key.KeyID)
	switch {
	case !ok:
		return nil, fault.New(fault.Unavailable, "there is no CRL yet").WithRetryAfter(time.Second)
	case published.DER.Size() > maxCRLBytes:
		return nil, refuse(enrollment.ReasonOther, nil, "the CRL is too long for SCEP; every certificate has its address")
	case !t.encrypts():
		return nil, refuse(enrollment.ReasonKey, nil, "the answer cannot be encrypted: the signing key is not RSA; every certificate has the CRL's address")
	}
	return cms.CRLsOnly(crl.Bytes(published.DER)), nil
}

// asked returns the names of a request in text, for people who decide.
func asked(request *csr.Request) (subject string, sans []string) {
	for _, n := range request.SANs {
		switch n.Tag {
		case der.TagDNSName:
			sans = append(sans, "DNS:"+n.Text)
		case der.TagRFC822Name:
			sans = append(sans, "email:"+n.Text)
		case der.TagURI:
			sans = append(sans, "URI:"+n.Text)
		case der.TagIPAddress:
			if ip, ok := netip.AddrFromSlice(n.Raw); ok {
				sans = append(sans, "IP:"+ip.String())
			}
		default:
			sans = append(sans, "other:"+n.Text)
		}
	}
	return profile.FormatSubject(request.Subject), sans
}
