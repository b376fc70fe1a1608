package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/pkg/client"
)

// sceper is a SCEP client that devices run. It is for concurrent use.
type sceper interface {
	String() string
	// ask asks for a certificate, and goes on until the point says other than that it is to wait. It returns the
	// certificate, in PEM or DER, or what the program says of the refusal.
	ask(d *device, a asking) (issued []byte, says string)
	// refused is what it says of a refusal with badRequest.
	refused() string
}

// asking is what a device asks for. The zero value is an enrollment without a challenge, by the device's name.
type asking struct {
	subject   string // empty is CN=, and the device's name
	san       string // a DNS name, or empty
	challenge string
	renewal   bool // by the certificate that it has
}

// device is one that enrolls. Its folder has its key and, once it has one, its certificate.
type device struct {
	*fleetStories
	t                *testing.T
	program          sceper
	dir, point, name string
}

func (d *device) file(name string) string { return filepath.Join(d.dir, name) }

// newKey gives the device a key and nothing else, as one has that was wiped.
func (d *device) newKey() {
	d.t.Helper()
	writeFile(d.t, d.file("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(d.keys.Next())}))
	if err := os.Remove(d.file("cert.pem")); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Fatal(err)
	}
}

// stolen is who has copied the device's key and certificate.
func (d *device) stolen() *device {
	d.t.Helper()
	thief := *d
	thief.dir = d.t.TempDir()
	for _, name := range []string{"key.pem", "cert.pem"} {
		writeFile(d.t, thief.file(name), readFile(d.t, d.file(name)))
	}
	return &thief
}

// challenge makes a one-time challenge of the device.
func (d *device) challenge(edit ...func(*client.CreateChallengeRequest)) string {
	d.t.Helper()
	r := client.CreateChallengeRequest{Point: d.point, Device: d.name}
	for _, e := range edit {
		e(&r)
	}
	c, err := d.s.Client.CreateChallenge(d.t.Context(), r)
	if err != nil {
		d.t.Fatal(err)
	}
	return c.Challenge
}

// enroll has the device get a certificate by a challenge.
func (d *device) enroll(challenge string) *x509.Certificate {
	d.t.Helper()
	return d.gets(asking{challenge: challenge})
}

// renew has the device get another certificate by the one that it has.
func (d *device) renew() *x509.Certificate {
	d.t.Helper()
	return d.gets(asking{renewal: true})
}

// gets has the device get a certificate, and keep it. meanwhile is done while it asks.
func (d *device) gets(a asking, meanwhile ...func()) *x509.Certificate {
	d.t.Helper()
	issued, says := d.asks(a, meanwhile)
	if b, _ := pem.Decode(issued); b != nil {
		issued = b.Bytes
	}
	c, err := x509.ParseCertificate(issued)
	if err != nil {
		d.t.Fatalf("%s has no certificate for %s: %v\n%s", d.program, d.name, err, says)
	}
	if c.Subject.CommonName != d.name {
		d.t.Errorf("the device %s has a certificate for %s", d.name, c.Subject)
	}
	writeFile(d.t, d.file("cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	known, err := d.s.Client.Certificate(d.t.Context(), idOf(c))
	if err != nil || known.Protocol != "scep" || known.Requester != "scep:"+d.point && !strings.Contains(known.Requester, "admin") {
		d.t.Errorf("the server knows the certificate as %+v, %v", known, err)
	}
	return c
}

// refused has the device ask and be refused with badRequest.
func (d *device) refused(a asking, meanwhile ...func()) {
	d.t.Helper()
	if issued, says := d.asks(a, meanwhile); issued != nil || !strings.Contains(says, d.program.refused()) {
		d.t.Errorf("%s has %d octets of a certificate, and should have been refused with badRequest:\n%s", d.program, len(issued), says)
	}
}

func (d *device) asks(a asking, meanwhile []func()) (issued []byte, says string) {
	if a.subject == "" {
		a.subject = "CN=" + d.name
	}
	var background sync.WaitGroup
	background.Go(func() { issued, says = d.program.ask(d, a) })
	for _, f := range meanwhile {
		f()
	}
	background.Wait()
	return issued, says
}

// waiting returns the request of a device that waits, once there is one.
func (d *device) waiting() client.Enrollment {
	d.t.Helper()
	var found client.Enrollment
	eventually(d.t, callTimeout, "a request waits", func() error {
		list, _, err := d.s.Client.Enrollments(d.t.Context(), client.EnrollmentQuery{Point: d.point, State: "pending"})
		for _, e := range list {
			if strings.Contains(e.Subject, "CN="+d.name) {
				found = e
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%d requests wait, and none of %s", len(list), d.name))
	})
	return found
}

// status waits until the server says of a certificate that it is so.
func (d *device) status(c *x509.Certificate, want string) {
	d.t.Helper()
	eventually(d.t, callTimeout, "the certificate is "+want, func() error {
		got, err := d.s.Client.Certificate(d.t.Context(), idOf(c))
		if err == nil && got.Status != want {
			err = errors.New("it is " + got.Status)
		}
		return err
	})
}

// swan is strongSwan's pki.
type swan struct {
	path string
	ca   string // the folder of what GetCACert brings
}

func newSwan(t *testing.T, s *Server) *swan {
	p := &swan{path: Need(t, "pki")[0], ca: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	r := Run(ctx, t, Command{Path: p.path, Args: []string{"--scepca", "--url", s.HTTP + "/scep/default", "--caout", "ca.der", "--raout", "ra.der"}, Dir: p.ca})
	if r.Code != 0 {
		t.Fatalf("pki --scepca ended with %d:\n%s", r.Code, r.Err)
	}
	return p
}

func (*swan) String() string  { return "strongSwan" }
func (*swan) refused() string { return "badRequest" }

func (p *swan) ask(d *device, a asking) ([]byte, string) {
	ca := func(name string) string { return filepath.Join(p.ca, name) }
	args := []string{
		"--scep", "--url", d.s.HTTP + "/scep/" + d.point, "--in", "key.pem", "--dn", a.subject, "--cacert-enc", ca("ra.der"), "--cacert-sig", ca("ra.der"),
		"--cacert", ca("ca.der"), "--cacert", ca("ca-1.der"), "--interval", "1", "--maxpolltime", "100",
	}
	if a.san != "" {
		args = append(args, "--san", a.san)
	}
	if a.challenge != "" {
		args = append(args, "--password", a.challenge)
	}
	if a.renewal {
		args = append(args, "--cert", "cert.pem", "--key", "key.pem")
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*callTimeout)
	defer cancel()
	r := Run(ctx, d.t, Command{Path: p.path, Args: args, Dir: d.dir})
	if r.Code == 0 {
		return []byte(r.Out), r.Err
	}
	return nil, r.Err
}

// monger is a certmonger on a message bus of its own, with folders of its own. It waits, and asks again when it is told to.
type monger struct {
	getcert string
	dir     string
	env     []string
	http    string // the server
	asked   atomic.Int64

	// One getcert at a time: each looks at all requests, and fails when one goes meanwhile.
	turn sync.Mutex

	mu     sync.Mutex
	points map[string]bool // of which it has been told; guarded by mu
}

func newMonger(t *testing.T, s *Server) *monger {
	programs := Need(t, "getcert", "certmonger", "dbus-daemon")
	m := &monger{getcert: programs[0], dir: t.TempDir(), http: s.HTTP, points: make(map[string]bool)}
	// A message bus's address is a list in which names of tests would have a meaning.
	folder, err := os.MkdirTemp("", "certwright-bus-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) }) // a leftover hurts nobody
	bus := filepath.Join(folder, "socket")
	m.env = append(os.Environ(), "LC_ALL=C.UTF-8", "DBUS_SESSION_BUS_ADDRESS=unix:path="+bus)
	for _, folder := range []string{"config", "requests", "cas", "local_ca"} {
		mkdir(t, filepath.Join(m.dir, folder))
		m.env = append(m.env, "CERTMONGER_"+strings.ToUpper(folder)+"_DIR="+filepath.Join(m.dir, folder))
	}
	// Without a lock of its own one certmonger waits for another to end before it listens.
	m.env = append(m.env, "CERTMONGER_SYSTEM_LOCK_FILE="+filepath.Join(m.dir, "lock"))
	// The system's own configuration would have getcert start a second certmonger.
	config := filepath.Join(m.dir, "bus.conf")
	writeFile(t, config, []byte(`<busconfig><type>session</type><listen>unix:path=`+bus+`</listen>
		<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`))
	broker := Spawn(t, syscall.SIGKILL, m.env, programs[2], "--nofork", "--nopidfile", "--config-file="+config)
	eventually(t, callTimeout, "there is a message bus", func() error {
		select {
		case <-broker.Done():
			t.Fatalf("dbus-daemon has ended: %s", broker.Log())
		default:
		}
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", bus)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	daemon := Spawn(t, syscall.SIGKILL, m.env, programs[1], "-s", "-n")
	// One that ends by itself has no helpers that still write to its folders.
	t.Cleanup(func() { daemon.Signal(syscall.SIGTERM, busy) })
	eventually(t, callTimeout, "certmonger listens", func() error {
		_, err := m.tell(t, "list-cas")
		return err
	})
	// Encryption, signing and trust: the RA, the root and the issuer, as certmonger itself sorts them.
	r := Run(t.Context(), t, Command{Path: "/usr/lib/certmonger/scep-submit", Args: []string{"-u", s.HTTP + "/scep/default", "-C"}, Env: m.env})
	rest := []byte(r.Out)
	for _, name := range []string{"ra.pem", "root.pem", "issuer.pem"} {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			t.Fatalf("certmonger has no %s: %s%s", name, r.Out, r.Err)
		}
		writeFile(t, filepath.Join(m.dir, name), pem.EncodeToMemory(b))
	}
	return m
}

func (*monger) String() string { return "certmonger" }
func (*monger) refused() string {
	return "Transaction either is not permitted or is not supported by server"
}

// tell runs getcert.
func (m *monger) tell(t *testing.T, command string, args ...string) (string, error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	r := Run(ctx, t, Command{Path: m.getcert, Args: append([]string{command, "-s"}, args...), Env: m.env})
	if r.Code != 0 {
		return "", fmt.Errorf("getcert %s %s ended with %d:\n%s%s", command, strings.Join(args, " "), r.Code, r.Out, r.Err)
	}
	return r.Out, nil
}

// know tells it of a point.
func (m *monger) know(t *testing.T, point string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.points[point] {
		return nil
	}
	file := func(name string) string { return filepath.Join(m.dir, name) }
	_, err := m.tell(t, "add-scep-ca", "-c", point, "-u", m.http+"/scep/"+point, "-r", file("ra.pem"), "-N", file("root.pem"), "-I", file("issuer.pem"))
	m.points[point] = err == nil
	return err
}

func (m *monger) ask(d *device, a asking) ([]byte, string) {
	issued, err := m.follow(d, a)
	if err != nil {
		return nil, err.Error()
	}
	return issued, ""
}

// follow has certmonger track the device's files for as long as the request takes.
func (m *monger) follow(d *device, a asking) (issued []byte, err error) {
	if err := m.know(d.t, d.point); err != nil {
		return nil, err
	}
	before, err := os.ReadFile(d.file("cert.pem"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	id := fmt.Sprintf("%s-%d", d.name, m.asked.Add(1))
	// Without -R certmonger renews by itself.
	args := []string{"-I", id, "-c", d.point, "-f", d.file("cert.pem"), "-k", d.file("key.pem"), "-R"}
	if a.challenge != "" {
		args = append(args, "-L", a.challenge)
	}
	if a.renewal {
		_, err = m.tell(d.t, "start-tracking", args...)
	} else {
		args = append(args, "-N", a.subject)
		if a.san != "" {
			args = append(args, "-D", a.san)
		}
		_, err = m.tell(d.t, "request", args...)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		_, e := m.tell(d.t, "stop-tracking", "-i", id)
		err = errors.Join(err, e)
	}()
	if a.renewal {
		// Told before it has read the certificate, it would ask for names of its own.
		var says string
		for until := time.Now().Add(2 * callTimeout); !strings.Contains(says, "status: MONITORING"); time.Sleep(pollInterval) {
			if says, err = m.tell(d.t, "list", "-i", id); err != nil || time.Now().After(until) {
				return nil, errors.Join(err, errors.New(says))
			}
		}
		if _, err := m.tell(d.t, "resubmit", "-i", id); err != nil {
			return nil, err
		}
	}
	for until := time.Now().Add(2 * callTimeout); ; time.Sleep(10 * pollInterval) {
		says, err := m.tell(d.t, "list", "-i", id)
		if err != nil {
			return nil, err
		}
		switch now, err := os.ReadFile(d.file("cert.pem")); {
		case strings.Contains(says, "ca-error: "), time.Now().After(until):
			return nil, errors.New(says)
		case strings.Contains(says, "status: CA_WORKING"):
			// It may have asked by itself meanwhile, and then says that there is nothing to ask for.
			_, _ = m.tell(d.t, "refresh", "-i", id)
		case err == nil && string(now) != string(before) && strings.Contains(says, "status: MONITORING"):
			return now, nil
		}
	}
}
