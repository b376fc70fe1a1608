package cms_test

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certwright/certwright/pkg/cms"
)

// An enrollment is: read, verify, decrypt with the RA's key; encrypt, sign with it. The two operations with an RSA-2048
// key are most of it; BenchmarkRSA tells how much.

func BenchmarkEnroll(b *testing.B) {
	message := clientMessages(b)["strongswan-enroll-1-PKCSReq"]
	ra := loadRA(b)
	r, signer := ra.recipient(b), ra.signer(b)
	answer := cms.CertificatesOnly(ra.certificate.Raw)
	read := func(b *testing.B) (*cms.PKIMessage, *cms.EnvelopedData) {
		m, err := cms.ParsePKIMessage(message, cms.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		e, err := cms.ParseEnvelopedData(m.Signed.Content, cms.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		return m, e
	}
	m, e := read(b)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			read(b)
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Verify(cms.VerifyOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decrypt", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.Decrypt(r, cms.DecryptOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encrypt", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cms.Encrypt(answer, m.SignerCertificate(), cms.Encryption{Cipher: e.Cipher}); err != nil {
				b.Fatal(err)
			}
		}
	})
	envelope, err := cms.Encrypt(answer, m.SignerCertificate(), cms.Encryption{Cipher: e.Cipher})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := signer.SignPKIMessage(cms.PKIMessageConfig{
				TransactionID: m.TransactionID, MessageType: cms.CertRep, RecipientNonce: m.SenderNonce, Digest: m.Digest(), Envelope: envelope,
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	// The CPU of all of it, and of what nobody can do without, on a machine that does other things too.
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		start := cpu(b)
		for b.Loop() {
			m, e := read(b)
			c, err := m.Verify(cms.VerifyOptions{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := e.Decrypt(r, cms.DecryptOptions{}); err != nil {
				b.Fatal(err)
			}
			envelope, err := cms.Encrypt(answer, c, cms.Encryption{Cipher: e.Cipher})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := signer.SignPKIMessage(cms.PKIMessageConfig{
				TransactionID: m.TransactionID, MessageType: cms.CertRep, RecipientNonce: m.SenderNonce, Digest: m.Digest(), Envelope: envelope,
			}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op")
	})
	b.Run("RSA-2048 private key", func(b *testing.B) {
		digest := make([]byte, 32)
		start := cpu(b)
		defer func() { b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op") }()
		for b.Loop() {
			if _, err := ra.key.Sign(nil, digest, digests[1]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// cpu returns the time that the process has computed for.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkNormalise: 64 KiB of each kind that could be slow.
func BenchmarkNormalise(b *testing.B) {
	const size = 64 << 10
	pieces := append([]byte{0x24, 0x80}, bytes.Repeat([]byte{4, 1, 'a'}, 8000)...)
	for name, in := range map[string][]byte{
		"nested":   bytes.Repeat([]byte{0x30, 0x80}, size/2),
		"elements": append([]byte{0x30, 0x83, 0, 0xff, 0xfa}, bytes.Repeat([]byte{5, 0}, (size-6)/2)...),
		"pieces":   append(pieces, 0, 0),
		"message":  clientMessages(b)["strongswan-enroll-1-PKCSReq"],
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				_, _ = cms.Normalise(in, cms.Limits{})
			}
		})
	}
}
