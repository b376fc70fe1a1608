package export_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/certwright/certwright/pkg/export"
	"github.com/certwright/certwright/pkg/fault"
)

// versitygw returns the path of an S3 server, which scripts/test has installed. Without one the test is skipped, or fails
// if everything is required.
func versitygw(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CERTWRIGHT_TEST_VERSITYGW")
	if path == "" {
		path, _ = exec.LookPath("versitygw")
	}
	if path != "" {
		return path
	}
	if os.Getenv("CI") == "true" || os.Getenv("CERTWRIGHT_TEST_REQUIRE") == "1" {
		t.Fatal("versitygw is missing: scripts/test installs what the tests need")
	}
	t.Skip("*** SKIPPED: versitygw is missing")
	return ""
}

// startS3 starts an S3 server with a bucket and returns its address and a client of its own.
func startS3(t *testing.T) (string, *minio.Client) {
	t.Helper()
	program := versitygw(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	for _, sub := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "--port", address, "--quiet", "posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=tester", "ROOT_SECRET_KEY=secret-of-the-test")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("versitygw:\n%s", log.String())
		}
	})
	client, err := minio.New(address, &minio.Options{Creds: credentials.NewStaticV4("tester", "secret-of-the-test", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = client.MakeBucket(t.Context(), "pki", minio.MakeBucketOptions{}); err == nil {
			return "http://" + address, client
		}
		if time.Now().After(deadline) {
			t.Fatalf("no bucket: %v\n%s", err, log.String())
		}
	}
}

// s3Target opens the bucket with a file of credentials.
func s3Target(t *testing.T, endpoint, where string) export.Target {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id = tester\naws_secret_access_key = secret-of-the-test\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, ok, err := export.ParseS3(where)
	if err != nil || !ok {
		t.Fatalf("ParseS3(%q) = %v, %v", where, ok, err)
	}
	cfg.Endpoint, cfg.Region, cfg.CredentialsFile = endpoint, "us-east-1", file
	s, err := export.NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3(t *testing.T) {
	endpoint, client := startS3(t)
	const prefix = "public/site/"
	testTarget(t, func() export.Target { return s3Target(t, endpoint, "s3://pki/"+prefix) }, func(name string) []byte {
		o, err := client.GetObject(t.Context(), "pki", prefix+name, minio.GetObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		b, err := io.ReadAll(o)
		if err != nil {
			return nil
		}
		return b
	}, func(name string, content []byte) {
		if _, err := client.PutObject(t.Context(), "pki", prefix+name, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	info, err := client.StatObject(t.Context(), "pki", prefix+"crls/issuing.pem", minio.StatObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info.ContentType != "application/pkix-crl" || info.Metadata.Get("Cache-Control") != "max-age=60, public" {
		t.Errorf("the object has the type %q and Cache-Control %q", info.ContentType, info.Metadata.Get("Cache-Control"))
	}

	t.Run("many at once", func(t *testing.T) {
		ca := newSigner(t)
		var all sync.WaitGroup
		for g := range 4 {
			s := s3Target(t, endpoint, "s3://pki")
			all.Go(func() {
				for n := range 5 {
					_, err := s.Put(t.Context(), export.File{Name: "race.crl", MediaType: "application/pkix-crl", Content: ca.crl(int64(1+n*4+g), 1)})
					if err != nil && !fault.Is(err, fault.Unavailable) {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		s := s3Target(t, endpoint, "s3://pki")
		if o, err := s.Put(t.Context(), export.File{Name: "race.crl", Content: ca.crl(20, 2)}); err != nil || o == export.Kept {
			t.Errorf("the last: %v, %v", o, err)
		}
		if o, err := s.Put(t.Context(), export.File{Name: "race.crl", Content: ca.crl(19, 2)}); err != nil || o != export.Kept {
			t.Errorf("one before the last: %v, %v", o, err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		s := s3Target(t, endpoint, "s3://no-such-bucket")
		_, err := s.Put(t.Context(), export.File{Name: "x", Content: []byte("x")})
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Public(err).Hint, "bucket") {
			t.Errorf("no bucket: %v", err)
		}
	})
	t.Run("away", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := s3Target(t, "http://127.0.0.1:1", "s3://pki")
		if _, err := s.Put(ctx, export.File{Name: "x", Content: []byte("x")}); !fault.Is(err, fault.Unavailable) || strings.Contains(err.Error(), "secret-of") {
			t.Errorf("away: %v", err)
		}
	})
}

func TestS3Errors(t *testing.T) {
	for _, bad := range []string{"s3://", "s3:///x", "s3://key:secret@bucket/x", "s3://bucket/x?y", "s3://bucket/a//b"} {
		if _, ok, err := export.ParseS3(bad); !ok || !fault.Is(err, fault.BadRequest) || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseS3(%q) = %v, %v", bad, ok, err)
		}
	}
	if _, ok, _ := export.ParseS3("/var/www"); ok {
		t.Error("a folder is taken for a bucket")
	}
	for _, bad := range []string{"s3.example.com", "ftp://s3.example.com", "https://s3.example.com/path", "https://k:s@s3.example.com"} {
		if _, err := export.NewS3(export.S3Config{Endpoint: bad, Bucket: "b"}); !fault.Is(err, fault.BadRequest) {
			t.Errorf("NewS3(%q): %v", bad, err)
		}
	}
}
