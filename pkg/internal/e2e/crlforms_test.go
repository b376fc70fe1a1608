package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// forms is a server whose issuing CA's lists change their form while its certificates live.
type forms struct {
	*testing.T
	s     *Server
	h     *hierarchy
	keyID string
	all   []*identity
	bad   map[string]bool // by id: revoked or held
}

// settle changes the form, and waits until certificates name their list in it.
func (f *forms) settle(config string) {
	f.Helper()
	now, err := f.s.Client.IssuerSettings(f.Context(), "issuing")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := f.s.Client.PutIssuerSettings(f.Context(), "issuing", now.Version, json.RawMessage(config)); err != nil {
		f.Fatal(err)
	}
	f.settled()
}

func (f *forms) settled() {
	f.Helper()
	eventually(f, 20*time.Second, "the lists of the new form", func() error {
		now, err := f.s.Client.IssuerSettings(f.Context(), "issuing")
		if err == nil && now.InForce.Pending != nil {
			err = errors.New("they are being made")
		}
		return err
	})
}

// issue has certificates issued, and some of them revoked or held.
func (f *forms) issue(name string) {
	f.Helper()
	for i, action := range []string{"", "revoke", "hold"} {
		c := issue(f, f.s, "client", fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("email:%s-%d@e2e.example", name, i))
		f.all = append(f.all, c)
		if action != "" {
			f.change(c, action)
		}
	}
}

func (f *forms) change(c *identity, action string) {
	f.Helper()
	args := []string{"cert", action, c.ID}
	if action == "revoke" {
		args = append(args, "--reason", "keyCompromise")
	}
	f.s.MustCLI(args...)
	f.bad[c.ID] = action != "release"
	for _, address := range []string{f.list(c), f.s.HTTP + "/crl/" + f.keyID + ".crl"} {
		eventually(f, crlLimit, action+" on "+address, func() error {
			if (listed(readCRL(f, address, f.h.issuing), c) != nil) != f.bad[c.ID] {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// list returns where the list that a certificate names is now: at its address, on the port that the server has.
func (f *forms) list(c *identity) string {
	f.Helper()
	_, path, ok := strings.Cut(strings.TrimPrefix(c.X509.CRLDistributionPoints[0], "http://"), "/")
	if !ok || len(c.X509.CRLDistributionPoints) != 1 {
		f.Fatalf("addresses %v", c.X509.CRLDistributionPoints)
	}
	return f.s.HTTP + "/" + path
}

// judge has programs that need no server judge every certificate.
func (f *forms) judge() {
	f.Helper()
	bundle := filepath.Join(f.h.dir, "bundle.pem")
	writeFile(f, bundle, fetch(f, f.s.HTTP+"/crls/issuing.pem"))
	roots, cas := filepath.Join(f.h.dir, "root.pem"), filepath.Join(f.h.dir, "issuing.pem")
	lists := map[string][]byte{}
	for _, c := range f.all {
		address := f.list(c)
		if lists[address] == nil {
			lists[address] = fetch(f, address)
		}
		f.h.refresh(f, address)
		for what, crls := range map[string]string{"its list": filepath.Join(f.h.dir, "crls.pem"), "the bundle": bundle} {
			r := try(f, "openssl", "verify", "-x509_strict", "-crl_check_all", "-CAfile", roots, "-untrusted", cas, "-CRLfile", crls, c.CertFile)
			if ok := r.Code == 0; ok == f.bad[c.ID] || !ok && !strings.Contains(r.Out+r.Err, "revoked") {
				f.Errorf("openssl, by %s at %s, revoked %v: code %d, %s%s", what, address, f.bad[c.ID], r.Code, r.Out, r.Err)
			}
		}
		// As a verifier in Go does it: crypto/x509 reads lists, and leaves the rest to its caller.
		list := readCRL(f, address, f.h.issuing)
		if (listed(list, c) != nil) != f.bad[c.ID] {
			f.Errorf("Go: %s on the list at %s: %v, want %v", c.Serial, address, !f.bad[c.ID], f.bad[c.ID])
		}
		for _, e := range list.Extensions {
			if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 28}) && (!e.Critical || !bytes.Contains(e.Value, []byte(c.X509.CRLDistributionPoints[0]))) {
				f.Errorf("the list at %s does not name %s: critical %v, %q", address, c.X509.CRLDistributionPoints[0], e.Critical, e.Value)
			}
		}
	}
	for address, der := range lists {
		lintCRL(f.T, der)
		file := filepath.Join(f.h.dir, "one.pem")
		writeFile(f, file, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
		if r := try(f, "certtool", "--verify-crl", "--load-ca-certificate", cas, "--infile", file); r.Code != 0 || !strings.Contains(r.Out+r.Err, "Verified") {
			f.Errorf("certtool on %s: code %d, %s%s", address, r.Code, r.Out, r.Err)
		}
	}
	args := []string{"-c", pythonJudge, roots, cas, bundle}
	for _, c := range f.all {
		args = append(args, c.CertFile, c.KeyFile)
	}
	for i, line := range strings.Fields(tool(f, "/usr/bin/python3", args...)) {
		if want := map[bool]string{false: "good", true: "revoked"}[f.bad[f.all[i].ID]]; line != want {
			f.Errorf("Python on %s: %s, want %s", f.all[i].Subject, line, want)
		}
	}
}

// pythonJudge is a server and a client in one program, which shake hands in memory.
const pythonJudge = `
import ssl, sys
roots, cas, crls = sys.argv[1:4]
for cert, key in zip(sys.argv[4::2], sys.argv[5::2]):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    for f in (roots, cas, crls):
        server.load_verify_locations(f)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.load_cert_chain(cert, key)
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(a, b, server_side=True), client.wrap_bio(b, a)]
    verdict = "good"
    for _ in range(8):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as e:
                verdict = "revoked" if e.verify_code == 23 else str(e)
                ends = []
                break
    print(verdict.replace(" ", "_"))
`

// deltas has OpenSSL judge by a complete list that it has had for a while and the newest delta list.
func (f *forms) deltas() {
	f.Helper()
	saved := map[string][]byte{}
	first := len(f.all)
	for _, name := range []string{"good", "bad", "released"} {
		f.all = append(f.all, issue(f, f.s, "client", "delta-"+name, "email:"+name+"@e2e.example"))
	}
	good, bad, released := f.all[first], f.all[first+1], f.all[first+2]
	f.change(released, "hold")
	for _, c := range f.all[first:] {
		saved[c.ID] = fetch(f, f.list(c))
	}
	f.change(bad, "revoke")
	f.change(released, "release")
	for c, want := range map[*identity]bool{good: true, bad: false, released: true} {
		delta := strings.TrimSuffix(f.list(c), ".crl") + "/delta.crl"
		if !strings.Contains(delta, "/s") {
			delta = strings.TrimSuffix(f.list(c), ".crl") + "/full/delta.crl"
		}
		for what, complete := range map[string][]byte{"saved": saved[c.ID], "newest": fetch(f, f.list(c))} {
			var text []byte
			for _, der := range [][]byte{complete, fetch(f, delta), fetch(f, f.h.issuing.CRLDistributionPoints[0])} {
				text = append(text, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
			}
			file := filepath.Join(f.h.dir, "deltas.pem")
			writeFile(f, file, text)
			r := try(f, "openssl", "verify", "-crl_check_all", "-use_deltas", "-CAfile", filepath.Join(f.h.dir, "root.pem"), "-untrusted", filepath.Join(f.h.dir, "issuing.pem"), "-CRLfile", file, c.CertFile)
			if ok := r.Code == 0; ok != want || !ok && !strings.Contains(r.Out+r.Err, "revoked") {
				f.Errorf("openssl -use_deltas with the %s list of %s: code %d, %s%s", what, c.Subject, r.Code, r.Out, r.Err)
			}
		}
	}
	ca := get(f, http.MethodGet, f.s.HTTP+"/crl/"+f.keyID+"/ca/delta.crl", nil)
	if _, err := x509.ParseRevocationList(ca.body); ca.status != 200 || err != nil {
		f.Errorf("delta list of CA certificates: %d, %v", ca.status, err)
	}
}

// TestCRLForms changes the form of the lists, the number of shards and the public address, and has programs that verify
// certificates judge those of before and of after: by the list that each names, and servers by the bundle.
func TestCRLForms(t *testing.T) {
	Need(t, "openssl", "certtool", "/usr/bin/python3", "nginx", "apache2", "haproxy", "mosquitto", "mosquitto_pub", "curl")
	t.Parallel()
	s := Start(t, Options{})
	issuer, err := s.Client.Issuer(t.Context(), "issuing")
	if err != nil {
		t.Fatal(err)
	}
	f := &forms{T: t, s: s, h: chainOf(t, s), keyID: issuer.KeyID, bad: map[string]bool{}}
	f.issue("full")
	f.judge()

	f.settle(`{"crl":{"form":"sharded","shards":2,"delta":{}}}`)
	f.issue("two")
	if address := f.all[3].X509.CRLDistributionPoints[0]; !strings.Contains(address, "/crl/"+f.keyID+"/s2/") {
		t.Errorf("a certificate of a sharded issuer names %s", address)
	}
	f.judge()
	f.deltas()
	servers := []*relyingServer{startNginx(t, s, byCRL), startApache(t, s, byCRL), startHAProxy(t, s, byCRL), startMosquitto(t, s)}
	f.visit(servers)

	f.settle(`{"crl":{"form":"sharded","shards":5,"delta":{}}}`)
	f.issue("five")
	// The public address changes with the next start.
	old := s.PublicURL
	s.Set(func(o *Options) { o.PublicURL = strings.Replace(old, "127.0.0.1", "localhost", 1) })
	s.PublicURL = strings.Replace(old, "127.0.0.1", "localhost", 1)
	s.Restart()
	f.settled()
	f.issue("moved")
	if address := f.all[len(f.all)-1].X509.CRLDistributionPoints[0]; !strings.HasPrefix(address, s.PublicURL+"/") {
		t.Errorf("after the move a certificate names %s", address)
	}
	f.settle(`{}`)
	f.issue("back")
	for _, i := range []int{0, 3} { // good until now, of the first two forms
		f.change(f.all[i], "revoke")
	}
	f.judge()
	for _, r := range servers {
		writeFile(t, filepath.Join(r.dir, "crls.pem"), fetch(t, s.HTTP+"/crls/issuing.pem"))
		r.again(t)
	}
	f.visit(servers)
}

// visit has each server let the good certificates in, and refuse the others.
func (f *forms) visit(servers []*relyingServer) {
	f.Helper()
	for _, r := range servers {
		for _, c := range f.all {
			eventually(f, 10*time.Second, r.name+" and "+c.Subject, func() error {
				in := r.name == "Mosquitto" && r.publish(f, c) || r.name != "Mosquitto" && r.visit(f, c) == 200
				if in == f.bad[c.ID] {
					return fmt.Errorf("let in: %v, revoked: %v", in, f.bad[c.ID])
				}
				return nil
			})
		}
	}
}

// again has a server of any kind read its files.
func (r *relyingServer) again(t testing.TB) {
	t.Helper()
	switch r.name {
	case "HAProxy":
		if err := r.process.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
	case "Mosquitto": // 2.0 reads the list at its start only
		r.process.Signal(syscall.SIGTERM, stopTimeout)
		r.process = Spawn(t, syscall.SIGTERM, bareEnv(), Need(t, "mosquitto")[0], "-c", filepath.Join(r.dir, "mosquitto.conf"))
		r.wait(t)
	default:
		r.reload(t)
	}
}

func startMosquitto(t testing.TB, s *Server) *relyingServer {
	t.Helper()
	path := Need(t, "mosquitto")[0]
	r := &relyingServer{name: "Mosquitto", dir: relyingFiles(t, s), port: FreePort(t), cacert: filepath.Join(s.Data, "root.pem")}
	r.logFile = filepath.Join(r.dir, "mosquitto.log")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root"
	}
	writeFile(t, filepath.Join(r.dir, "mosquitto.conf"), fmt.Appendf(nil, `
%[4]s
log_dest file %[3]s
persistence false
listener %[2]d 127.0.0.1
cafile %[1]s/client-ca.pem
certfile %[1]s/server.pem
keyfile %[1]s/server.key
crlfile %[1]s/crls.pem
require_certificate true
use_identity_as_username true
`, r.dir, r.port, r.logFile, user))
	r.process = Spawn(t, syscall.SIGTERM, bareEnv(), path, "-c", filepath.Join(r.dir, "mosquitto.conf"))
	r.wait(t)
	return r
}

// publish sends Mosquitto a message that it must acknowledge, and tells whether it did.
func (r *relyingServer) publish(t testing.TB, i *identity) bool {
	t.Helper()
	res := try(t, "mosquitto_pub", "-h", "127.0.0.1", "-p", fmt.Sprint(r.port), "--cafile", r.cacert, "--cert", i.ChainFile, "--key", i.KeyFile, "-q", "1", "-t", "t", "-m", "m")
	return res.Code == 0
}
