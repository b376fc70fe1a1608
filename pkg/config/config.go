// Package config reads the settings of the server's process: where it listens, where it keeps things, how often it
// publishes. Issuers, profiles and tokens are not settings: they live in the store and reach every replica from there.
//
// A setting is taken from the command line's flag, else from the environment (CERTWRIGHT_ and the key's path in
// capitals, as in CERTWRIGHT_CRL_INTERVAL), else from the file, else it has its default. The empty file is a working
// server. A key that does not exist is refused: a misspelt setting must not be silently ignored.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/pkg/document"
	"github.com/certwright/certwright/pkg/keys"
)

// EnvPrefix begins the name of every environment variable that is read.
const EnvPrefix = "CERTWRIGHT_"

// Config is every setting of the process. The zero value of a field means its default; Complete fills it in.
type Config struct {
	// Data is the folder of this process: the embedded store, the key file, the first token. Default: certwright in
	// the user's data folder ($XDG_DATA_HOME, else ~/.local/share).
	Data string `yaml:"data"`
	// HTTP is where CRLs, OCSP and CA certificates are served in the clear. Default: 127.0.0.1:8080. "off" serves none.
	HTTP string `yaml:"http"`
	// HTTPS is where the REST API and the start page are served. Default: 127.0.0.1:8443.
	HTTPS string `yaml:"https"`
	// MTLS is where holders of our certificates serve themselves. Default: 127.0.0.1:8444. "off" serves none.
	MTLS string `yaml:"mtls"`
	// Metrics is where /metrics is served in the clear to whoever reaches it: names of issuers and profiles, and how much they
	// are used, but no secrets. Default: off; with a token it is had from HTTPS in any case. Example: 127.0.0.1:9090
	Metrics string `yaml:"metrics"`
	// PublicURL is the http address under which verifiers reach HTTP. It goes into certificates. Default: http:// and
	// the address of HTTP, which only this machine can reach. Example: http://pki.example.com
	PublicURL string `yaml:"public_url"`
	// Names are more names and addresses for the server's own certificate. Example: [pki.example.com, 192.0.2.7]
	Names []string `yaml:"names"`
	// Database is the Postgres connection string. Default: none, the embedded store in Data.
	// Example: postgres://certwright@db.example.com/certwright?sslmode=verify-full
	Database string `yaml:"database"`
	// Migrate says whether serve brings the database's schema up to date by itself. Default: true. With several
	// replicas, or a database role that may not change the schema, set false and run "certwright store migrate".
	Migrate *bool `yaml:"migrate"`

	// WeakKeys is a file that lists public keys which are refused, such as those that Debian's OpenSSL of 2008 made: a line for
	// each, in hexadecimal: SHA-256 of the SubjectPublicKeyInfo, SHA-1 of it or of openssl's «Modulus=» line, or the 20 digits
	// of openssl-blacklist. Default: none. Example: /etc/certwright/weak-keys
	WeakKeys string `yaml:"weak_keys"`

	Key  Key  `yaml:"key"`
	Init Init `yaml:"init"`
	CRL  CRL  `yaml:"crl"`
	OCSP OCSP `yaml:"ocsp"`
	SCEP SCEP `yaml:"scep"`
	Log  Log  `yaml:"log"`

	Limits Limits `yaml:"limits"`
	Export Export `yaml:"export"`
}

// Key says where the key-encryption key comes from, which wraps every private key in the store. At most one may be set.
type Key struct {
	// File holds 32 random bytes, mode 0600. Default: kek.key in Data, made at the first start.
	File string `yaml:"file"`
	// PassphraseFile holds a passphrase in its first line. CERTWRIGHT_KEY_PASSPHRASE in the environment does as well.
	PassphraseFile string `yaml:"passphrase_file"`
	// Passphrase is only read from the environment, never from the file or a flag.
	Passphrase string `yaml:"-"`
	// Credential is the name of a systemd credential (LoadCredentialEncrypted=) with the same contents as File.
	Credential string `yaml:"credential"`
}

// Init is what the first start makes. It has no effect on a store that exists.
type Init struct {
	// Name is the organization's name in the CA certificates. Default: Certwright. Example: Example Corp
	Name string `yaml:"name"`
	// KeyAlgorithm is of the root and the issuing CA: p-256 (default), p-384, p-521, rsa-2048, rsa-3072, rsa-4096,
	// ed25519.
	KeyAlgorithm keys.Algorithm `yaml:"key_algorithm"`
}

// CRL says how certificate revocation lists are published.
type CRL struct {
	// Interval is how often every CRL is made anew. Default: 1h.
	Interval Duration `yaml:"interval"`
	// NextUpdate is how long verifiers may use a CRL: how long an outage of this server can last before they refuse
	// everybody. Default: 7d.
	NextUpdate Duration `yaml:"next_update"`
	// Coalesce is how long a revocation waits for others, so that a storm costs one CRL. Default: 500ms.
	Coalesce Duration `yaml:"coalesce"`
	// Aliases are more paths that CRLs are served at, for certificates whose CRL was elsewhere before: PATH=ISSUER, or
	// PATH=ISSUER/SCOPE for a shard or another part. PEM at a path that ends in .pem, else DER. Example:
	// [/old/issuing.crl=issuing, /old/issuing-3.crl=issuing/s64/3]
	Aliases []string `yaml:"aliases"`
}

// CRLAlias is a path that a CRL is served at besides its own.
type CRLAlias struct{ Path, Issuer, Scope string }

// ParseAliases reads Aliases. The scope is empty for the complete CRL.
func (c CRL) ParseAliases() ([]CRLAlias, error) {
	var out []CRLAlias
	seen := map[string]bool{}
	for _, text := range c.Aliases {
		path, target, ok := strings.Cut(text, "=")
		issuer, scope, narrow := strings.Cut(target, "/")
		switch {
		case !ok || issuer == "" || narrow && scope == "":
			return nil, fmt.Errorf("%q is not PATH=ISSUER or PATH=ISSUER/SCOPE, as in /old/issuing.crl=issuing", text)
		case !aliasPath.MatchString(path) || len(path) > 200 || strings.Contains(path, "//") || strings.Contains(path, ".."):
			return nil, fmt.Errorf("%q is not a path such as /old/issuing.crl", path)
		case strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/ocsp"):
			return nil, fmt.Errorf("%q is in use", path)
		case seen[path]:
			return nil, fmt.Errorf("%q stands there twice", path)
		}
		seen[path] = true
		out = append(out, CRLAlias{path, issuer, scope})
	}
	return out, nil
}

var aliasPath = regexp.MustCompile(`^/[A-Za-z0-9._~/-]+$`)

// OCSP says how status requests are answered.
type OCSP struct {
	// NextUpdate is how long verifiers may use an answer. Default: 10m.
	NextUpdate Duration `yaml:"next_update"`
	// MaxAge is how long HTTP caches may keep one. Default: 1m.
	MaxAge Duration `yaml:"max_age"`
	// MaxStale is how old this replica's knowledge may be, when the store is away, before it answers tryLater.
	// Default: 1m.
	MaxStale Duration `yaml:"max_stale"`
	// Unknown is the answer for serial numbers that were never issued: unauthorized (default, unsigned) or unknown
	// (signed).
	Unknown string `yaml:"unknown"`
}

// Export says where what verifiers need is copied to, for static web servers and CDNs.
type Export struct {
	// To is a folder, or s3://BUCKET/PREFIX. Default: none. Example: /var/www/pki
	To string `yaml:"to"`
	// Endpoint is the address of S3-compatible storage. Default: AWS. Example: https://s3.example.com
	Endpoint string `yaml:"s3_endpoint"`
	// Region of the bucket. Default: it is found out. Example: eu-central-1
	Region string `yaml:"s3_region"`
	// CredentialsFile has the form of ~/.aws/credentials. Default: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the
	// environment, else ~/.aws/credentials, else the role of the machine.
	CredentialsFile string `yaml:"credentials_file"`
}

// SCEP says how devices are served that enroll by SCEP. Enrollment points are no settings of the process: see
// certwright point.
type SCEP struct {
	// RAKeyAge is how long a key of the registration authority that was replaced still decrypts, for devices that were off
	// meanwhile. Default: 2y.
	RAKeyAge Duration `yaml:"ra_key_age"`
}

// Log says how the log is written, to standard error.
type Log struct {
	// Format is text (default) or json.
	Format string `yaml:"format"`
	// Level is debug, info (default), warn or error.
	Level string `yaml:"level"`
}

// Limits bounds what requests to the API may cost this process; every replica counts for itself. The defaults are those of
// package rest, which explains each, and of package campaign.
type Limits struct {
	// Token is for each API token. Default: off. Example: 50/s burst 200
	Token Rate `yaml:"token"`
	// Holder is for each client certificate on the self-service routes. Default: 10/s burst 100
	Holder Rate `yaml:"holder"`
	// Source is for each network address without valid credentials; loopback is exempt. Default: 100/s burst 500
	Source Rate `yaml:"source"`
	// Searches is how many lists and searches run at the same time. Default: 3
	Searches Count `yaml:"searches"`
	// Exports is how many exports run at the same time. Default: 2
	Exports Count `yaml:"exports"`
	// Followers is how many follow the audit trail at the same time. Default: 16
	Followers Count `yaml:"followers"`
	// KeyMaking is how many private keys the server makes at the same time. Default: 2
	KeyMaking Count `yaml:"key_making"`
	// RevocationStep is how many certificates a campaign revokes in one transaction, which others wait for: 1 to 5000.
	// Default: 500
	RevocationStep Count `yaml:"revocation_step"`
	// Wait is how long an expensive request waits for its turn before it is told to come back. Below 20s. Default: 10s
	Wait Duration `yaml:"wait"`
	// BodyBytes is the longest body of a request, in octets: 65536 to 16777216. Default: 262144
	BodyBytes Count `yaml:"body_bytes"`
}

// Rate is how often something may happen: 10/s, or with how many at once 10/s burst 100, or off. Empty is not set.
type Rate string

// UnmarshalText refuses every other form.
func (r *Rate) UnmarshalText(text []byte) error {
	rate := Rate(strings.Join(strings.Fields(string(text)), " "))
	if perSecond, _ := rate.Limit(); perSecond == 0 {
		return fmt.Errorf("%q is not a rate such as 10/s, 10/s burst 100, or off", text)
	}
	*r = rate
	return nil
}

// Limit returns how many a second, negative for off, and how many at once. Zeros are not set.
func (r Rate) Limit() (perSecond float64, burst int) {
	if r == Off {
		return -1, 0
	}
	number, rest, several := strings.Cut(string(r), " burst ")
	number, ok := strings.CutSuffix(number, "/s")
	perSecond, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(perSecond > 0 && perSecond <= maxRate) {
		return 0, 0
	}
	if several {
		if burst, err = strconv.Atoi(rest); err != nil || burst < 1 || burst > maxRate {
			return 0, 0
		}
	}
	return perSecond, burst
}

const (
	maxRate = 1_000_000
	maxWait = 20 * time.Second // what the API gives a request for everything
)

// Count is a number above zero. The zero value is not set.
type Count int

// UnmarshalText reads decimal digits.
func (c *Count) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 || n > 1<<30 {
		return fmt.Errorf("%q is not a number above zero", text)
	}
	*c = Count(n)
	return nil
}

// Duration is a time.Duration in text form: 90s, 10m, 7d.
type Duration time.Duration

// UnmarshalText reads the form of document.ParseDuration, as the settings of issuers and profiles have it. Zero and negative
// durations are refused.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := document.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 90s, 10m or 7d", text)
	}
	if v <= 0 {
		return fmt.Errorf("a duration of %s is not above zero", v)
	}
	*d = Duration(v)
	return nil
}

// MarshalText returns the form of time.Duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Off is the address of a listener that is not wanted.
const Off = "off"

// Load reads the file, if there is one, and the environment over it. path is what --config says; when it is empty,
// certwright.yaml in the data folder is read if it exists. The flags are laid over the result by apply, before defaults
// are filled in. environ is what os.Environ returns; a variable that begins with CERTWRIGHT_ and is none of ours is
// refused. What is wrong with a setting comes as an [*Error].
func Load(path string, environ []string, apply func(*Config)) (Config, error) {
	var c Config
	if apply == nil {
		apply = func(*Config) {}
	}
	if err := CheckEnvironment(environ); err != nil {
		return Config{}, err
	}
	lookup := lookupIn(environ)
	file, required := path, path != ""
	if !required {
		if v, ok := lookup(EnvPrefix + "CONFIG"); ok && v != "" {
			file, required = v, true
		}
	}
	if !required {
		// The data folder itself may be set by a flag or the environment.
		var where Config
		if err := fromEnv(&where, lookup, nil); err != nil {
			return Config{}, err
		}
		apply(&where)
		if where.Data == "" {
			d, err := defaultData(lookup)
			if err != nil {
				return Config{}, err
			}
			where.Data = d
		}
		file = filepath.Join(where.Data, "certwright.yaml")
	}
	from := make(sources)
	f, err := os.Open(file)
	switch {
	case err == nil:
		defer f.Close()
		if err := decode(f, &c, file, from); err != nil {
			return Config{}, err
		}
	case required || !errors.Is(err, fs.ErrNotExist):
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := fromEnv(&c, lookup, from); err != nil {
		return Config{}, err
	}
	before := texts(c)
	apply(&c)
	for key, text := range texts(c) {
		if before[key] != text {
			from[key] = source{flag: true}
		}
	}
	if c.Data == "" {
		if c.Data, err = defaultData(lookup); err != nil {
			return Config{}, err
		}
	}
	err = c.Complete()
	if e, ok := errors.AsType[*Error](err); ok {
		e.Where, e.Flag = from[e.Key].where, from[e.Key].flag
	}
	return c, err
}

func defaultData(lookup func(string) (string, bool)) (string, error) {
	if v, ok := lookup("XDG_DATA_HOME"); ok && filepath.IsAbs(v) {
		return filepath.Join(v, "certwright"), nil
	}
	home, ok := lookup("HOME")
	if !ok || home == "" {
		return "", errors.New("there is no home folder to keep data in: say where with --data")
	}
	return filepath.Join(home, ".local", "share", "certwright"), nil
}

// Complete fills in the defaults and checks what does not fit. The error is an [*Error].
func (c *Config) Complete() error {
	if c.Data == "" {
		return wrong("data", "no folder")
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return wrong("data", "%s", err)
	}
	c.Data = data
	setDefault(&c.HTTP, "127.0.0.1:8080")
	setDefault(&c.HTTPS, "127.0.0.1:8443")
	setDefault(&c.MTLS, "127.0.0.1:8444")
	setDefault(&c.Metrics, Off)
	for _, listener := range [][2]string{{"http", c.HTTP}, {"https", c.HTTPS}, {"mtls", c.MTLS}, {"metrics", c.Metrics}} {
		key, addr := listener[0], listener[1]
		if addr == Off && key != "https" {
			continue
		}
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			return wrong(key, "%q is not an address such as 127.0.0.1:8080 or :8080", addr)
		}
	}
	if c.PublicURL != "" {
		c.PublicURL = strings.TrimRight(c.PublicURL, "/")
		u, err := url.Parse(c.PublicURL)
		switch {
		case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			return wrong("public_url", "%q is not an address such as http://pki.example.com", c.PublicURL)
		case u.Scheme != "http":
			// RFC 5280, Section 8: a verifier that needs TLS to fetch a CRL may need that CRL to check the TLS.
			return wrong("public_url", "%q must be plain http: verifiers fetch CRLs and OCSP answers without TLS", c.PublicURL)
		}
	}
	for _, n := range c.Names {
		if strings.ContainsAny(n, " /:@*") && net.ParseIP(n) == nil || n == "" {
			return wrong("names", "%q is not a host name or an IP address", n)
		}
	}
	if set := count(c.Key.File != "", c.Key.PassphraseFile != "" || c.Key.Passphrase != "", c.Key.Credential != ""); set > 1 {
		return wrong("key", "set one of file, passphrase_file and credential, not several")
	}
	if c.Migrate == nil {
		yes := true
		c.Migrate = &yes
	}
	setDefault(&c.Init.Name, "Certwright")
	setDuration(&c.CRL.Interval, time.Hour)
	setDuration(&c.CRL.NextUpdate, 7*24*time.Hour)
	setDuration(&c.CRL.Coalesce, 500*time.Millisecond)
	if c.CRL.NextUpdate < 2*c.CRL.Interval {
		return wrong("crl.next_update", "%s is less than twice crl.interval (%s): one missed CRL would lock everybody out",
			time.Duration(c.CRL.NextUpdate), time.Duration(c.CRL.Interval))
	}
	if _, err := c.CRL.ParseAliases(); err != nil {
		return wrong("crl.aliases", "%v", err)
	}
	setDuration(&c.OCSP.NextUpdate, 10*time.Minute)
	setDuration(&c.OCSP.MaxAge, time.Minute)
	setDuration(&c.OCSP.MaxStale, time.Minute)
	setDefault(&c.OCSP.Unknown, "unauthorized")
	setDuration(&c.SCEP.RAKeyAge, 2*365*24*time.Hour)
	if c.OCSP.MaxAge >= c.OCSP.NextUpdate {
		return wrong("ocsp.max_age", "%s is not below ocsp.next_update (%s)", time.Duration(c.OCSP.MaxAge), time.Duration(c.OCSP.NextUpdate))
	}
	for _, limit := range []struct {
		key      string
		value    Count
		low, top Count
	}{
		{"limits.searches", c.Limits.Searches, 1, 100},
		{"limits.exports", c.Limits.Exports, 1, 100},
		{"limits.followers", c.Limits.Followers, 1, 1000},
		{"limits.key_making", c.Limits.KeyMaking, 1, 100},
		{"limits.revocation_step", c.Limits.RevocationStep, 1, 5000},
		{"limits.body_bytes", c.Limits.BodyBytes, 64 << 10, 16 << 20},
	} {
		if limit.value != 0 && (limit.value < limit.low || limit.value > limit.top) {
			return wrong(limit.key, "%d is not between %d and %d", limit.value, limit.low, limit.top)
		}
	}
	if wait := time.Duration(c.Limits.Wait); wait >= maxWait {
		return wrong("limits.wait", "%s is not below %s, which a request has for everything", wait, maxWait)
	}
	if c.Export.To == "" && (c.Export.Endpoint != "" || c.Export.Region != "" || c.Export.CredentialsFile != "") {
		return wrong("export.to", "say where to export to, as in s3://bucket/prefix")
	}
	setDefault(&c.Log.Format, "text")
	setDefault(&c.Log.Level, "info")
	for _, check := range []struct {
		key, value string
		allowed    []string
	}{
		{"ocsp.unknown", c.OCSP.Unknown, []string{"unauthorized", "unknown"}},
		{"log.format", c.Log.Format, []string{"text", "json"}},
		{"log.level", c.Log.Level, []string{"debug", "info", "warn", "error"}},
	} {
		if !contains(check.allowed, check.value) {
			return wrong(check.key, "%q is not one of %s", check.value, strings.Join(check.allowed, ", "))
		}
	}
	return nil
}

// KEKFile returns the path of the key file, the default one when none is set.
func (c *Config) KEKFile() string {
	if c.Key.File != "" {
		return c.Key.File
	}
	return filepath.Join(c.Data, "kek.key")
}

// Loopback reports whether an address that clients are told is one that only this machine reaches.
func Loopback(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func setDefault(s *string, v string) {
	if *s == "" {
		*s = v
	}
}

func setDuration(d *Duration, v time.Duration) {
	if *d == 0 {
		*d = Duration(v)
	}
}

func count(bs ...bool) (n int) {
	for _, b := range bs {
		if b {
			n++
		}
	}
	return n
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}
