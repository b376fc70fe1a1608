package export

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/certwright/certwright/pkg/fault"
)

// Metadata of objects, which spares reading them again. It holds when the storage's entity tag is the MD5 of what it was
// made for, as that of whole objects is, unless they are encrypted with a key of one's own. Else others have been there,
// and there is storage that keeps the metadata of an object before.
const (
	metaMD5     = "Certwright-Md5"
	metaHash    = "Certwright-Sha256"
	metaNumbers = "Certwright-Crl-Numbers"
	// maxMeta keeps the metadata of bundles below the 2 KiB that S3 allows.
	maxMeta = 1500
)

// maxTries is how often an object is looked at again because another exporter was faster.
const maxTries = 4

// S3Config says where objects go. Bucket is required.
type S3Config struct {
	Endpoint string // https://s3.example.com; empty means AWS, or AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL in the environment
	Region   string // empty: AWS_REGION in the environment, else it is found out
	Bucket   string
	Prefix   string // of names, without slashes at its ends; may be empty
	// CredentialsFile is a file in the form of ~/.aws/credentials. Empty: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the
	// environment, else ~/.aws/credentials, else the role of the machine.
	CredentialsFile string
	// Lookup reads the environment: os.LookupEnv.
	Lookup func(string) (string, bool)
}

// S3 is a bucket of S3-compatible object storage.
type S3 struct {
	cfg    S3Config
	client *minio.Client
}

// ParseS3 reads s3://BUCKET/PREFIX. It returns false for anything that does not begin with s3://.
func ParseS3(target string) (cfg S3Config, ok bool, err error) {
	rest, ok := strings.CutPrefix(target, "s3://")
	if !ok {
		return cfg, false, nil
	}
	cfg.Bucket, cfg.Prefix, _ = strings.Cut(rest, "/")
	cfg.Prefix = strings.Trim(cfg.Prefix, "/")
	if u, e := url.Parse(target); cfg.Bucket == "" || e != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.Contains(cfg.Prefix, "//") {
		// The text is not repeated: it may hold what somebody took for the place of a password.
		return cfg, true, fault.New(fault.BadRequest, "this is not an address such as s3://bucket/prefix")
	}
	return cfg, true, nil
}

// NewS3 returns a bucket. Nothing is asked of it yet.
func NewS3(cfg S3Config) (*S3, error) {
	if cfg.Lookup == nil {
		cfg.Lookup = func(string) (string, bool) { return "", false }
	}
	env := func(name string) string { v, _ := cfg.Lookup(name); return v }
	endpoint := cmp.Or(cfg.Endpoint, env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com")
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fault.New(fault.BadRequest, "the S3 endpoint is not an address such as https://s3.example.com")
	}
	var from *credentials.Credentials
	if cfg.CredentialsFile != "" {
		from = credentials.NewFileAWSCredentials(cfg.CredentialsFile, env("AWS_PROFILE"))
	} else {
		from = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		})
	}
	transport, err := minio.DefaultTransport(u.Scheme == "https")
	if err != nil {
		return nil, err
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds: from, Secure: u.Scheme == "https", Region: cmp.Or(cfg.Region, env("AWS_REGION"), env("AWS_DEFAULT_REGION")),
		Transport: transport, MaxRetries: 3,
	})
	if err != nil {
		return nil, fault.Wrap(fault.BadRequest, err, "the S3 endpoint cannot be used: %v", err)
	}
	return &S3{cfg: cfg, client: client}, nil
}

// String returns s3://BUCKET/PREFIX.
func (s *S3) String() string { return "s3://" + path.Join(s.cfg.Bucket, s.cfg.Prefix) }

// Put implements Target. Objects are always whole. Between the look at an object and its replacement nobody else's comes,
// where the storage knows conditional requests; on one that does not, two exporters at once may cross.
func (s *S3) Put(ctx context.Context, f File) (Outcome, error) {
	sum := sha256.Sum256(f.Content)
	hash, mine := hex.EncodeToString(sum[:]), numbersOf(f.Content)
	key := path.Join(s.cfg.Prefix, f.Name)
	tag := md5.Sum(f.Content)
	meta := map[string]string{metaHash: hash, metaMD5: hex.EncodeToString(tag[:])}
	switch text := mine.String(); {
	case len(text) > maxMeta:
		meta[metaNumbers] = "many" // the object must be read
	case text != "":
		meta[metaNumbers] = text
	}
	conditional := true
	for range maxTries {
		o := minio.PutObjectOptions{
			ContentType: f.MediaType, CacheControl: f.CacheControl, DisableMultipart: true, SendContentMd5: true, UserMetadata: meta,
		}
		there, err := s.client.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{})
		switch {
		case err == nil:
			theirs, others, err := s.look(ctx, key, there)
			if err != nil {
				return 0, err
			}
			if theirs == hash && there.ContentType == f.MediaType {
				return Unchanged, nil
			}
			if mine.olderThan(others) {
				return Kept, nil
			}
			if conditional {
				o.SetMatchETag(there.ETag)
			}
		case isCode(err, http.StatusNotFound, "NoSuchKey"):
			if conditional {
				o.SetMatchETagExcept("*")
			}
		default:
			return 0, s.explain(err)
		}
		_, err = s.client.PutObject(ctx, s.cfg.Bucket, key, bytes.NewReader(f.Content), int64(len(f.Content)), o)
		switch {
		case err == nil:
			return Written, nil
		case isCode(err, http.StatusPreconditionFailed, "PreconditionFailed"), isCode(err, http.StatusConflict, "ConditionalRequestConflict"):
		case conditional && isCode(err, http.StatusNotImplemented, "NotImplemented"):
			conditional = false
		default:
			return 0, s.explain(err)
		}
	}
	return 0, fault.New(fault.Unavailable, "others write the object %s all the time", key)
}

// look returns the hash of an object and the numbers of its CRLs, from its metadata if that holds.
func (s *S3) look(ctx context.Context, key string, there minio.ObjectInfo) (hash string, all numbers, err error) {
	if there.UserMetadata[metaMD5] == there.ETag && there.UserMetadata[metaHash] != "" {
		if all, ok := parseNumbers(there.UserMetadata[metaNumbers]); ok {
			return there.UserMetadata[metaHash], all, nil
		}
	}
	if there.Size > maxFileBytes {
		return "", nil, nil // none of ours
	}
	object, err := s.client.GetObject(ctx, s.cfg.Bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return "", nil, s.explain(err)
	}
	defer object.Close()
	content, err := io.ReadAll(io.LimitReader(object, maxFileBytes))
	if err != nil {
		return "", nil, s.explain(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), numbersOf(content), nil
}

func isCode(err error, status int, code string) bool {
	e := minio.ToErrorResponse(err)
	return e.Code == code || e.StatusCode == status && e.Code == ""
}

// explain says what the storage has refused. Its errors hold no secrets.
func (s *S3) explain(err error) error {
	e := minio.ToErrorResponse(err)
	hint := ""
	switch e.Code {
	case "NoSuchBucket":
		hint = "make the bucket first"
	case "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "AllAccessDisabled":
		hint = "the credentials need s3:GetObject and s3:PutObject for " + s.String() + "/*, and s3:ListBucket for the bucket, without which what is absent looks forbidden"
	}
	out := fault.Wrap(fault.Unavailable, err, "%s: %s", s, cmp.Or(e.Message, fmt.Sprint(err)))
	if hint != "" {
		out = out.WithHint("%s", hint)
	}
	return out
}
