package csr_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"testing"

	"github.com/certwright/certwright/pkg/csr"
	"github.com/certwright/certwright/pkg/fault"
)

// A key that is encoded in another way has another hash, by which blocked keys are known. Go's parser reads all of these.
func TestOneKeyHasOneEncoding(t *testing.T) {
	type algorithm struct {
		OID        asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
		More       asn1.RawValue `asn1:"optional"`
	}
	type info struct {
		Algorithm algorithm
		Key       asn1.BitString
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	null := asn1.RawValue{Tag: asn1.TagNull}
	tests := []struct {
		name   string
		signer crypto.Signer
		change func(*info)
		ok     bool
	}{
		{"EC as it is", ec, func(*info) {}, true},
		{"RSA as it is", rs, func(*info) {}, true},
		{"EC with more behind the curve", ec, func(i *info) { i.Algorithm.More = null }, false},
		{"RSA with octets behind the key", rs, func(i *info) { i.Key.Bytes = append(i.Key.Bytes, 5, 0); i.Key.BitLength += 16 }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spki, err := x509.MarshalPKIXPublicKey(tt.signer.Public())
			if err != nil {
				t.Fatal(err)
			}
			var i info
			if _, err := asn1.Unmarshal(spki, &i); err != nil {
				t.Fatal(err)
			}
			tt.change(&i)
			if spki, err = asn1.Marshal(i); err != nil {
				t.Fatal(err)
			}
			_, err = csr.Parse(signedRequest(t, spki, tt.signer))
			if tt.ok && err != nil || !tt.ok && !fault.Is(err, fault.BadPublicKey) {
				t.Errorf("Parse: %v, want accepted = %v, else BadPublicKey", err, tt.ok)
			}
		})
	}
}

// signedRequest makes a request with the given SubjectPublicKeyInfo, an empty subject and no attributes.
func signedRequest(t *testing.T, spki []byte, signer crypto.Signer) []byte {
	t.Helper()
	tbs, err := asn1.Marshal(struct {
		Version    int
		Subject    asn1.RawValue
		SPKI       asn1.RawValue
		Attributes asn1.RawValue
	}{
		Subject: asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true}, SPKI: asn1.RawValue{FullBytes: spki},
		Attributes: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(tbs)
	sig, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	alg := asn1.RawValue{FullBytes: []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02")}
	if _, ok := signer.(*rsa.PrivateKey); ok {
		alg.FullBytes = []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00")
	}
	raw, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, alg, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
