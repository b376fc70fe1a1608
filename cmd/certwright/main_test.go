package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/smallstep/pkcs7"
	"github.com/smallstep/scep"
	"github.com/smallstep/scep/x509util"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	pkcs7.ContentEncryptionAlgorithm = pkcs7.EncryptionAlgorithmAES128CBC // of enroll; else it is DES
	testscript.Main(m, map[string]func(){"certwright": main})
}

// TestScripts runs testdata/script. Beside what testscript knows, scripts have
//
//	exits CODE PROGRAM [ARGS...]   runs a program that must end with this code
//	mode OCTAL FILE                wants this mode
//	makecert KIND FILE             writes a self-signed certificate: plain, hostile, expired, der, csr, key
//	serving FOLDER                 waits for a server with this data folder
//	enroll STATUS CN ADDRESS FILE  asks by SCEP, wants SUCCESS, FAILURE or PENDING; files hold address and challenge
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			return os.Chmod(env.WorkDir, 0o755) // whatever the umask: keys are not written where others write
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "mode": mode, "makecert": makeCertificate, "serving": serving, "enroll": enroll,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s ended with exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

func makeCertificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: makecert KIND FILE")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	now := time.Now()
	spiffe, err := url.Parse("spiffe://example.com/web")
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x41013f0b1c2d), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90*24*time.Hour + time.Minute),
		Subject:  pkix.Name{CommonName: "www.example.com", Organization: []string{"Example, Inc."}},
		DNSNames: []string{"www.example.com", "*.example.net"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 7)}, URIs: []*url.URL{spiffe},
		EmailAddresses: []string{"ada@example.com"},
		KeyUsage:       x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		CRLDistributionPoints: []string{"http://pki.example.com/crl"}, OCSPServer: []string{"http://pki.example.com/ocsp"},
		IssuingCertificateURL: []string{"http://pki.example.com/ca.cer"}, SubjectKeyId: []byte{1, 2, 3, 4},
	}
	kind, blockType, der := args[0], "CERTIFICATE", []byte(nil)
	switch kind {
	case "plain", "der", "csr", "key":
	case "expired":
		template.NotBefore, template.NotAfter = now.Add(-72*time.Hour), now.Add(-49*time.Hour)
	case "hostile":
		template.Subject = pkix.Name{
			CommonName:   "www.example.com\x1b[2J\x1b]0;owned\a\u202egpj.exe\u009b31m",
			Organization: []string{"line\nerror: all is well", "tab\tand\u200bnothing"},
		}
		template.DNSNames = []string{"dns\x1b[31m.example.com", "new\nline.example.com"}
		template.CRLDistributionPoints = []string{"http://pki.example.com/\x1b[1A"}
	default:
		ts.Fatalf("makecert knows no kind %q", kind)
	}
	switch kind {
	case "csr":
		blockType = "CERTIFICATE REQUEST"
		der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "csr.example.com"}, DNSNames: []string{"csr.example.com"},
		}, key)
	case "key":
		blockType = "PRIVATE KEY"
		der, err = x509.MarshalPKCS8PrivateKey(key)
	default:
		der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	}
	ts.Check(err)
	text := pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})
	if kind == "der" {
		text = der
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
}

func serving(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serving FOLDER")
	}
	var file clientFile
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if readYAML(filepath.Join(ts.MkAbs(args[0]), clientFileName), &file) != nil {
			continue
		}
		u, err := url.Parse(file.Server)
		ts.Check(err)
		if c, err := net.Dial("tcp", u.Host); err == nil {
			c.Close()
			return
		}
	}
	ts.Fatalf("no server answers")
}

// enroll is a device with a new key.
func enroll(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: enroll STATUS CN ADDRESS FILE")
	}
	address, challenge := strings.TrimSpace(ts.ReadFile(args[2])), strings.TrimSpace(ts.ReadFile(args[3]))
	read := func(answer *http.Response, err error) []byte {
		ts.Check(err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		ts.Check(err)
		if answer.StatusCode != http.StatusOK {
			ts.Fatalf("%s: %s", answer.Status, body)
		}
		return body
	}
	known, err := scep.CACerts(read(http.Get(address + "?operation=GetCACert")))
	ts.Check(err)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	now, subject := time.Now(), pkix.Name{CommonName: args[1]}
	template := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	signer, err := x509.ParseCertificate(raw)
	ts.Check(err)
	wish := x509util.CertificateRequest{ChallengePassword: challenge}
	wish.Subject, wish.SignatureAlgorithm = subject, x509.SHA256WithRSA
	raw, err = x509util.CreateCertificateRequest(rand.Reader, &wish, key)
	ts.Check(err)
	csr, err := x509.ParseCertificateRequest(raw)
	ts.Check(err)
	m, err := scep.NewCSRRequest(csr, &scep.PKIMessage{MessageType: scep.PKCSReq, Recipients: known[:1], SignerKey: key, SignerCert: signer})
	ts.Check(err)
	rep, err := scep.ParsePKIMessage(read(http.Post(address+"?operation=PKIOperation", "application/x-pki-message", bytes.NewReader(m.Raw))), scep.WithCACerts(known))
	ts.Check(err)
	want := map[string]scep.PKIStatus{"SUCCESS": scep.SUCCESS, "FAILURE": scep.FAILURE, "PENDING": scep.PENDING}[args[0]]
	if rep.PKIStatus != want {
		ts.Fatalf("got status %s (failInfo %q), want %s", rep.PKIStatus, string(rep.FailInfo), args[0]) // its String panics
	}
}

func testEnvironment() *environment {
	return &environment{
		in: strings.NewReader(""), out: io.Discard, err: io.Discard, now: time.Now,
	}
}

// everyCommand calls f for each command of ours.
func everyCommand(f func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		f(cmd)
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRootCommand(testEnvironment()))
}

func TestCommandsExplainThemselves(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is %q, want a line without a full stop", cmd.CommandPath(), cmd.Short)
		}
		if cmd.Example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		if !cmd.Runnable() {
			t.Errorf("%s does nothing", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if n := len([]rune(strings.TrimSpace(line))); n > 120 {
				t.Errorf("%s: a line of its help has %d characters, want 120 at most: %s", cmd.CommandPath(), n, line)
			}
		}
	})
}

// TestExamplesAreCommandLines takes every line of an example that has the program's name, flags and arguments included.
func TestExamplesAreCommandLines(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			_, line, found := strings.Cut(strings.TrimSpace(line), "certwright ")
			if !found {
				continue
			}
			args, err := shellWords(line)
			if err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			target, err := commandOf(args)
			if err == nil {
				err = target.ValidateArgs(target.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
}

// commandOf returns the command that a command line names, with its flags parsed. One that only holds others is none.
func commandOf(args []string) (*cobra.Command, error) {
	target, rest, err := newRootCommand(testEnvironment()).Find(args)
	if err == nil {
		err = target.ParseFlags(rest)
	}
	if err == nil && target.HasSubCommands() && target.Flags().NArg() > 0 {
		err = fmt.Errorf("%s has no command %q", target.CommandPath(), target.Flags().Arg(0))
	}
	return target, err
}

// shellWords splits a command line as far as examples need it: quotes, and the end at a redirection or a pipe.
func shellWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	flush := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ':
			flush()
		case strings.ContainsRune("|<>)&;", r):
			flush()
			return words, nil
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	flush()
	return words, nil
}
