package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	apiclient "github.com/certwright/certwright/pkg/client"
	"github.com/certwright/certwright/pkg/cms"
	"github.com/certwright/certwright/pkg/enrollment"
	"github.com/certwright/certwright/pkg/pki"
	"github.com/certwright/certwright/pkg/profile"
)

// Kinds of challenges that devices enroll with.
const (
	staticChallenge  = "static"
	oneTimeChallenge = "one-time"
)

// deviceKeys is how many keys the devices share. The server looks at each message by itself: it does not gain by it.
const deviceKeys = 256

// The CPU time of an enrollment, server and database together, in milliseconds, that we want to reach on a machine whose
// floor is scepReference, in milliseconds too.
const (
	scepGoal      = 2.1
	scepReference = 1.75
)

const scepMediaType = "application/x-pki-message"

// scepReport is everything that «scep» measures.
type scepReport struct {
	Machine     machine    `json:"machine"`
	Challenge   string     `json:"challenge"`
	Connections int        `json:"connections"`
	Runs        []issueRun `json:"runs"`
}

func measureSCEP(ctx context.Context, o options) (*scepReport, error) {
	report := &scepReport{Machine: thisMachine(), Challenge: o.challenge, Connections: o.connections}
	m := report.Machine
	fmt.Printf("machine     %d CPUs (%s), Linux %s, %s\n", m.CPUs, m.Model, m.Kernel, m.Go)
	devices, err := makeDevices()
	if err != nil {
		return nil, fmt.Errorf("making devices: %w", err)
	}
	for _, store := range o.stores {
		run, err := scepOurs(ctx, o, store, devices)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", store, err)
		}
		run.printSCEP(o)
		report.Runs = append(report.Runs, *run)
	}
	return report, nil
}

// scepDevice is a key with the certificate, signed by itself, that the first message of a device is signed with (RFC 8894,
// Section 2.3).
type scepDevice struct {
	key       *rsa.PrivateKey
	signer    *cms.Signer
	recipient *cms.Recipient
}

func makeDevices() ([]scepDevice, error) {
	devices := make([]scepDevice, deviceKeys)
	return devices, parallel(len(devices), func(i int) error {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		t := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprintf("device %d", i)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 7),
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		}
		der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
		if err != nil {
			return err
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		d := scepDevice{key: key}
		if d.signer, err = cms.NewSigner(c, key); err != nil {
			return err
		}
		d.recipient, err = cms.NewRecipient(c, key)
		devices[i] = d
		return err
	})
}

// scepPoint is what a device knows of an enrollment point.
type scepPoint struct {
	url           string
	ra            *x509.Certificate
	intermediates *x509.CertPool
	roots         *x509.CertPool
}

func scepOurs(ctx context.Context, o options, store string, devices []scepDevice) (run *issueRun, err error) {
	database, postmaster := "", 0
	if store == "postgres" {
		database, postmaster = o.database, o.postmaster
	}
	s, started, err := startServer(ctx, o.server, filepath.Join(o.folder, "scep-"+store), database)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = s.failure(err)
		}
		err = errors.Join(err, s.stop())
	}()
	api, err := apiclient.New(apiclient.Config{URL: s.url, Token: s.token, Roots: s.roots})
	if err != nil {
		return nil, err
	}
	point, err := scepKnow(ctx, api, s.roots)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	n := int((warmUp + o.duration).Seconds() * 500 * float64(runtime.NumCPU())) // a core cannot do more than the floor
	n = max(min(n, 250_000), o.connections)
	challenges, err := scepChallenges(ctx, o, api, n)
	if err != nil {
		return nil, fmt.Errorf("making challenges: %w", err)
	}
	requests, err := scepRequests(n, devices, point, challenges)
	if err != nil {
		return nil, fmt.Errorf("making messages: %w", err)
	}
	fmt.Printf("requests    %d messages of %d keys, made in %.0f s\n", n, len(devices), time.Since(began).Seconds())
	l := &load{
		url: point.url + "?operation=PKIOperation", media: scepMediaType, status: http.StatusOK, once: true,
		requests: requests, clients: o.connections, duration: o.duration, identify: identifySCEP,
	}
	run, out, err := measure(ctx, l, requests[0].floorRSA, s.pid(), postmaster, o.profile)
	if err != nil {
		return nil, err
	}
	run.Server, run.Store, run.Starts = "certwright", store, &startReport{First: milliseconds(started)}
	byKey := map[crypto.PublicKey]*cms.Recipient{}
	for _, d := range devices {
		byKey[&d.key.PublicKey] = d.recipient
	}
	for _, sample := range out.samples {
		if err := point.verify(sample, byKey[sample.request.key]); err != nil {
			return nil, fmt.Errorf("answer for %s: %w", sample.request.name, err)
		}
	}
	listed, err := s.list(ctx, profile.Device)
	if err != nil {
		return nil, fmt.Errorf("listing: %w", err)
	}
	if run.Rows = len(listed); run.Rows != run.All {
		return nil, fmt.Errorf("the store lists %d certificates, and %d were answered", run.Rows, run.All)
	}
	return run, nil
}

// scepKnow does what a device does first: ask for the CA's certificates. The RA is made when the first one asks.
func scepKnow(ctx context.Context, api *apiclient.Client, roots *x509.CertPool) (*scepPoint, error) {
	about, err := api.EnrollmentPoint(ctx, enrollment.DefaultPoint)
	if err != nil {
		return nil, err
	}
	answer, err := fetch(about.URL + "?operation=GetCACert")
	if err != nil {
		return nil, err
	}
	message, err := cms.ParseSignedData(answer, cms.Limits{})
	if err != nil {
		return nil, err
	}
	p := &scepPoint{url: about.URL, intermediates: x509.NewCertPool(), roots: roots}
	for _, der := range message.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if c.IsCA {
			p.intermediates.AddCert(c)
		} else {
			p.ra = c
		}
	}
	if p.ra == nil {
		return nil, errors.New("GetCACert names no RA")
	}
	return p, nil
}

// scepChallenges returns a challenge for each device, which may all be the same. Devices with challenges of their own share
// keys, which takes a switch; without it the server looks into one more index.
func scepChallenges(ctx context.Context, o options, api *apiclient.Client, n int) ([]string, error) {
	p, err := api.EnrollmentPoint(ctx, enrollment.DefaultPoint)
	if err != nil {
		return nil, err
	}
	if o.challenge == staticChallenge {
		text := rand.Text()
		_, err = api.PutEnrollmentPoint(ctx, p.Name, apiclient.PutPointRequest{Version: p.Version, Settings: p.Settings, StaticChallenge: &text})
		return slices.Repeat([]string{text}, n), err
	}
	settings, err := enrollment.ParseConfig(p.Settings)
	if err != nil {
		return nil, err
	}
	settings.Legacy = map[enrollment.Switch]enrollment.Date{enrollment.LegacySharedKeys: {Time: time.Now().UTC().AddDate(0, 0, 1).Truncate(24 * time.Hour)}}
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	if _, err := api.PutEnrollmentPoint(ctx, p.Name, apiclient.PutPointRequest{Version: p.Version, Settings: text}); err != nil {
		return nil, err
	}
	challenges := make([]string, n)
	var next atomic.Int64
	return challenges, concurrently(o.connections, func() error {
		for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
			c, err := api.CreateChallenge(ctx, apiclient.CreateChallengeRequest{Device: deviceName(int(i))})
			if err != nil {
				return err
			}
			challenges[i] = c.Challenge
		}
		return nil
	})
}

func deviceName(i int) string { return fmt.Sprintf("d%06d.bench.example", i) }

// scepRequests makes a PKCSReq for each challenge, as clients in use do: SHA-256, AES-128, PKCS #1 v1.5. Its transactionID
// is the device's name, and its senderNonce follows from that, so that each answer can be checked without a table.
func scepRequests(n int, devices []scepDevice, p *scepPoint, challenges []string) ([]request, error) {
	requests := make([]request, n)
	return requests, parallel(n, func(i int) error {
		r, d := &requests[i], &devices[i%len(devices)]
		r.name, r.key = deviceName(i), &d.key.PublicKey
		var err error
		if r.der, err = scepCSR(r.name, challenges[i], d.key); err != nil {
			return err
		}
		envelope, err := cms.Encrypt(r.der, p.ra, cms.Encryption{})
		if err != nil {
			return err
		}
		r.body, err = d.signer.SignPKIMessage(cms.PKIMessageConfig{
			TransactionID: r.name, MessageType: cms.PKCSReq, SenderNonce: nonceOf(r), Envelope: envelope,
		})
		return err
	})
}

func nonceOf(r *request) []byte {
	digest := sha256.Sum256([]byte(r.name))
	return digest[:cms.NonceBytes]
}

// scepCSR makes a CSR with a challengePassword, for which x509 has no field: its attributes are for extensions alone.
func scepCSR(name, challenge string, key *rsa.PrivateKey) ([]byte, error) {
	subject, err := asn1.Marshal(pkix.Name{CommonName: name}.ToRDNSequence())
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // CertificationRequestInfo (RFC 2986, Section 4.1)
		b.AddASN1Int64(0)
		b.AddBytes(subject)
		b.AddBytes(spki)
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			attribute := func(typ asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(typ)
					b.AddASN1(cbasn1.SET, value)
				})
			}
			attribute(pki.OIDChallengePassword, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.PrintableString, func(b *cryptobyte.Builder) { b.AddBytes([]byte(challenge)) })
			})
			extensionRequest, subjectAltName := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}, asn1.ObjectIdentifier{2, 5, 29, 17}
			attribute(extensionRequest, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(subjectAltName)
						b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
								b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) }) // dNSName
							})
						})
					})
				})
			})
		})
	})
	info, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(info)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, err
	}
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(info)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}) // sha256WithRSAEncryption
			b.AddASN1NULL()
		})
		b.AddASN1BitString(signature)
	})
	return out.Bytes()
}

// identifySCEP reads each answer: a SUCCESS for this very request. Its signature is for verify.
func identifySCEP(r *request, header http.Header, body []byte) (string, error) {
	m, err := cms.ParsePKIMessage(body, cms.Limits{})
	switch {
	case err != nil:
		return "", err
	case header.Get("Content-Type") != scepMediaType:
		return "", fmt.Errorf("it is of type %q", header.Get("Content-Type"))
	case m.MessageType != cms.CertRep || m.PKIStatus != cms.Success:
		return "", fmt.Errorf("it is a %s with %s, %s: %s", m.MessageType, m.PKIStatus, m.FailInfo, m.FailInfoText)
	case m.TransactionID != r.name || !bytes.Equal(m.RecipientNonce, nonceOf(r)):
		return "", fmt.Errorf("it is for another request, %s", m.TransactionID)
	}
	return m.TransactionID, nil
}

// verify opens an answer as the device does, and looks at its certificate.
func (p *scepPoint) verify(s sample, device *cms.Recipient) error {
	m, err := cms.ParsePKIMessage(s.body, cms.Limits{})
	if err != nil {
		return err
	}
	by, err := m.Verify(cms.VerifyOptions{})
	if err != nil {
		return err
	}
	if !by.Equal(p.ra) {
		return fmt.Errorf("it is signed by %s", by.Subject)
	}
	envelope, err := cms.ParseEnvelopedData(m.Signed.Content, cms.Limits{})
	if err != nil {
		return err
	}
	content, err := envelope.Decrypt(device, cms.DecryptOptions{})
	if err != nil {
		return err
	}
	degenerate, err := cms.ParseSignedData(content, cms.Limits{})
	if err != nil {
		return err
	}
	if len(degenerate.Certificates) != 1 {
		return fmt.Errorf("it has %d certificates", len(degenerate.Certificates))
	}
	c, err := x509.ParseCertificate(degenerate.Certificates[0])
	if err != nil {
		return err
	}
	if _, err := c.Verify(x509.VerifyOptions{
		DNSName: s.request.name, Roots: p.roots, Intermediates: p.intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return err
	}
	switch {
	case !samePublicKey(c.PublicKey, s.request.key):
		return errors.New("the certificate has another public key than the CSR")
	case c.Subject.CommonName != s.request.name || !slices.Equal(c.DNSNames, []string{s.request.name}):
		return fmt.Errorf("the certificate's names are %s, %q", c.Subject, c.DNSNames)
	case c.IsCA:
		return errors.New("it is a CA certificate")
	}
	return nil
}

// printSCEP tells of a run.
func (r *issueRun) printSCEP(o options) {
	fmt.Printf("\n== %s, %s: %.0f enrollments/s (%d connections, %s challenge, %.1f s)\n", r.Server, r.Store, r.PerSecond, o.connections, o.challenge, r.Seconds)
	fmt.Printf("answers     %d, all SUCCESS; %d decrypted and verified; %d rows in the store\n", r.All, r.Verified, r.Rows)
	r.printLatency()
	c := r.CPU
	fmt.Printf("CPU         server %.3f + database %.3f = %.3f ms an enrollment (generator %.3f)\n", c.Server, c.Database, c.Together, c.Generator)
	fmt.Printf("            %.2f x floor: here %.0f us for decrypting + %.0f us for signing with RSA-2048, %.0f us for checking a CSR + %.0f us for signing with P-256\n",
		c.PerFloor, c.Floor.Decrypt, c.Floor.SignRSA, c.Floor.CheckCSR, c.Floor.Sign)
	fmt.Printf("            %.2f x the goal of %.1f ms; in floors %.2f x the goal of %.2f\n",
		c.Together/scepGoal, scepGoal, c.PerFloor/(scepGoal/scepReference), scepGoal/scepReference)
	r.printCores()
	r.printMemory()
}
