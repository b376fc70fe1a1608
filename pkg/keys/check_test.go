//lint:file-ignore SA1019 Go makes no such keys, so their coordinates are set by hand.

package keys_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/keys"
)

func prime(t testing.TB, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nextPrime is the first prime from p+gap on.
func nextPrime(p, gap *big.Int) *big.Int {
	q := new(big.Int).Add(p, gap)
	q.SetBit(q, 0, 1)
	for !q.ProbablyPrime(0) {
		q.Add(q, big.NewInt(2))
	}
	return q
}

func publicPEM(t testing.TB, file string) crypto.PublicKey {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func edKey(y *big.Int, sign byte) ed25519.PublicKey {
	k := y.FillBytes(make([]byte, 32))
	slices.Reverse(k)
	k[31] |= sign << 7
	return k
}

func edHex(t *testing.T, s string) ed25519.PublicKey {
	t.Helper()
	k, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCheckPublicKey(t *testing.T) {
	good := rsaKey()
	withE := func(e int) *rsa.PublicKey { return &rsa.PublicKey{N: good.N, E: e} }
	withN := func(n *big.Int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: 65537} }
	times := func(factor int64) *rsa.PublicKey {
		return withN(new(big.Int).Mul(good.N, big.NewInt(factor)))
	}
	one := big.NewInt(1)
	p := prime(t, 1024)
	close0 := new(big.Int).Mul(p, nextPrime(p, big.NewInt(2)))
	// Found within 100 rounds: (q-p)^2 / (8 sqrt(N)) is about 8.
	close8 := new(big.Int).Mul(p, nextPrime(p, new(big.Int).Lsh(one, 515)))
	// Not found: the distance is far above N^(1/4).
	far := new(big.Int).Mul(p, nextPrime(p, new(big.Int).Lsh(one, 900)))

	p256 := generate(t, keys.P256).Public().(*ecdsa.PublicKey)
	off := *p256
	off.Y = new(big.Int).Add(off.Y, one)
	onlyX := *p256
	onlyX.Y = nil
	negative := *p256
	negative.X = new(big.Int).Neg(negative.X)
	big256 := *p256
	big256.X = new(big.Int).Add(big256.X, elliptic.P256().Params().P)
	otherCurve := *p256
	otherCurve.Curve = elliptic.P384()
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edP := keys.EdwardsP()
	ed := generate(t, keys.Ed25519).Public().(ed25519.PublicKey)
	var notOnCurve ed25519.PublicKey // a third y without an x must exist below 100
	for y := int64(2); y < 100; y++ {
		var refused *keys.RefusedError
		if k := edKey(big.NewInt(y), 0); errors.As(keys.CheckPublicKey(k, keys.Rules{}), &refused) &&
			strings.Contains(refused.Detail, "not a point") {
			notOnCurve = k
			break
		}
	}

	for _, tc := range []struct {
		name string
		pub  crypto.PublicKey
		want keys.Reason // 0: accepted
	}{
		{"rsa", good.Public(), 0},
		{"rsa largest exponent", withE(1<<31 - 1), 0},
		{"rsa exponent 65539", withE(65539), 0},
		{"rsa exponent 3", withE(3), keys.RSAExponent},
		{"rsa exponent 65535", withE(65535), keys.RSAExponent},
		{"rsa exponent 65536", withE(65536), keys.RSAExponent},
		{"rsa exponent even", withE(65538), keys.RSAExponent},
		{"rsa exponent 1", withE(1), keys.RSAExponent},
		{"rsa exponent 0", withE(0), keys.RSAExponent},
		{"rsa exponent negative", withE(-65537), keys.RSAExponent},
		{"rsa 2047 bits", withN(new(big.Int).Rsh(good.N, 1)), keys.RSATooShort},
		{"rsa 8193 bits", withN(new(big.Int).SetBit(good.N, 8192, 1)), keys.RSATooLong},
		{"rsa huge", withN(new(big.Int).SetBit(good.N, 1<<20, 1)), keys.RSATooLong},
		{"rsa even", times(2), keys.RSASmallFactor},
		{"rsa times 3", times(3), keys.RSASmallFactor},
		{"rsa times 4093", times(4093), keys.RSASmallFactor},
		{"rsa times 4099 is beyond the bound", times(4099), 0},
		{"rsa square", withN(new(big.Int).Mul(p, p)), keys.RSAClosePrimes},
		{"rsa twin primes", withN(close0), keys.RSAClosePrimes},
		{"rsa close primes", withN(close8), keys.RSAClosePrimes},
		{"rsa primes far enough", withN(far), 0},
		{"rsa roca", publicPEM(t, "testdata/roca.pem"), keys.ROCA},
		{"rsa negative", withN(new(big.Int).Neg(good.N)), keys.UnsupportedType},
		{"rsa empty", &rsa.PublicKey{}, keys.UnsupportedType},
		{"rsa nil", (*rsa.PublicKey)(nil), keys.UnsupportedType},
		{"p-256", p256, 0},
		{"p-384", generate(t, keys.P384).Public(), 0},
		{"p-521", generate(t, keys.P521).Public(), 0},
		{"p-224", p224.Public(), keys.ECCurve},
		{"curve of our own", &ecdsa.PublicKey{Curve: &elliptic.CurveParams{Name: "mine"}, X: one, Y: one}, keys.ECCurve},
		{"point off the curve", &off, keys.ECPoint},
		{"point of another curve", &otherCurve, keys.ECPoint},
		{"point without y", &onlyX, keys.ECPoint},
		{"point negative", &negative, keys.ECPoint},
		{"point out of range", &big256, keys.ECPoint},
		{"point at infinity", &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int), Y: new(big.Int)}, keys.ECPoint},
		{"ecdsa without curve", &ecdsa.PublicKey{}, keys.UnsupportedType},
		{"ecdsa without point", &ecdsa.PublicKey{Curve: elliptic.P256()}, keys.ECPoint},
		{"ecdsa nil", (*ecdsa.PublicKey)(nil), keys.UnsupportedType},
		{"ed25519", ed, 0},
		// RFC 8032, Section 7.1, test 1.
		{"ed25519 of RFC 8032", edHex(t, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"), 0},
		{"ed25519 base point", edHex(t, "58"+strings.Repeat("66", 31)), 0},
		{"ed25519 short", ed[:31], keys.Ed25519Point},
		{"ed25519 long", append(slices.Clone(ed), 0), keys.Ed25519Point},
		{"ed25519 empty", ed25519.PublicKey(nil), keys.Ed25519Point},
		{"ed25519 not on the curve", notOnCurve, keys.Ed25519Point},
		{"ed25519 order 1", edKey(one, 0), keys.Ed25519Point},
		{"ed25519 order 1, sign set", edKey(one, 1), keys.Ed25519Point},
		{"ed25519 order 2", edKey(new(big.Int).Sub(edP, one), 0), keys.Ed25519Point},
		{"ed25519 order 4", edKey(new(big.Int), 0), keys.Ed25519Point},
		{"ed25519 order 4, other", edKey(new(big.Int), 1), keys.Ed25519Point},
		{"ed25519 order 8", edHex(t, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), keys.Ed25519Point},
		{"ed25519 order 8, other", edHex(t, "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), keys.Ed25519Point},
		{"ed25519 not canonical", edKey(new(big.Int).Add(edP, big.NewInt(3)), 0), keys.Ed25519Point},
		{"nil", nil, keys.UnsupportedType},
		{"private key", generate(t, keys.P256), keys.UnsupportedType},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := keys.CheckPublicKey(tc.pub, keys.Rules{})
			if tc.want == 0 {
				if err != nil {
					t.Errorf("CheckPublicKey = %v, want it accepted", err)
				}
				return
			}
			var refused *keys.RefusedError
			if !errors.As(err, &refused) || refused.Reason != tc.want {
				t.Errorf("CheckPublicKey = %v, want reason %v", err, tc.want)
			}
		})
	}
}

func TestReasonString(t *testing.T) {
	seen := make(map[string]bool)
	for r := keys.UnsupportedType; r <= keys.Ed25519Point; r++ {
		name := r.String()
		if strings.Contains(name, "(") || seen[name] {
			t.Errorf("reason %d has the name %q", r, name)
		}
		seen[name] = true
	}
	if got := keys.Reason(0).String(); got != "reason(0)" {
		t.Errorf("String = %q, want reason(0)", got)
	}
}

func TestIsSquareProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "n"))
		square := new(big.Int).Mul(n, n)
		if !keys.IsSquare(square) {
			t.Errorf("IsSquare(%v^2) = false", n)
		}
		root := new(big.Int).Sqrt(n)
		if want := root.Mul(root, root).Cmp(n) == 0; keys.IsSquare(n) != want {
			t.Errorf("IsSquare(%v) = %v", n, !want)
		}
	})
}

func TestModProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "n"))
		m := rapid.UintMin(1).Draw(t, "m")
		want := new(big.Int).Mod(n, new(big.Int).SetUint64(uint64(m)))
		if got := keys.Mod(n, m); uint64(got) != want.Uint64() {
			t.Errorf("%v mod %d = %d, want %v", n, m, got, want)
		}
	})
}

func TestSmallFactorProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := new(big.Int).SetUint64(rapid.Uint64Min(2).Draw(t, "n"))
		var want uint
		for p := uint(2); p < 4096; p++ {
			if keys.Mod(n, p) == 0 {
				want = p
				break
			}
		}
		if got := keys.SmallFactor(n); got != want {
			t.Errorf("SmallFactor(%v) = %d, want %d", n, got, want)
		}
	})
}

// Whatever distance Fermat's method can bridge in the rounds that we give it
// is found; the answer is checked against arithmetic on small numbers.
func TestClosePrimesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := 2*rapid.Uint32Min(1<<20).Draw(t, "p") + 1
		q := p + 2*rapid.Uint32Range(0, 1<<19).Draw(t, "half distance")
		n := new(big.Int).Mul(big.NewInt(int64(p)), big.NewInt(int64(q)))
		// The middle of p and q must lie within 100 steps from sqrt(n).
		root := new(big.Int).Sqrt(n)
		if new(big.Int).Mul(root, root).Cmp(n) < 0 {
			root.Add(root, big.NewInt(1))
		}
		steps := (int64(p)+int64(q))/2 - root.Int64()
		if steps < 100 && !keys.ClosePrimes(n) {
			t.Errorf("ClosePrimes(%d * %d) = false, %d steps", p, q, steps)
		}
	})
}

// Doubling takes y to (y^2 v + u) / (2 v + u - y^2 v) with u = y^2 - 1 and v =
// d y^2 + 1. Three doublings of a point of small order give the identity,
// whose y is 1 and no other point's is.
func TestSmallOrder(t *testing.T) {
	p, d, one := keys.EdwardsP(), keys.EdwardsD(), big.NewInt(1)
	for _, small := range keys.SmallOrder() {
		y := new(big.Int).Set(small)
		for range 3 {
			y2 := new(big.Int).Mul(y, y)
			u := new(big.Int).Sub(y2, one)
			v := new(big.Int).Mul(d, y2)
			v.Add(v, one)
			num := new(big.Int).Mul(y2, v)
			den := new(big.Int).Lsh(v, 1)
			den.Add(den, u).Sub(den, num).Mod(den, p)
			num.Add(num, u)
			y.Mul(num, den.ModInverse(den, p)).Mod(y, p)
		}
		if y.Cmp(one) != 0 {
			t.Errorf("8 times the point with y = %x has y = %x, want 1", small, y)
		}
	}
}

func TestEd25519Property(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		pub := ed25519.NewKeyFromSeed(seed).Public()
		if err := keys.CheckPublicKey(pub, keys.Rules{}); err != nil {
			t.Errorf("CheckPublicKey(%x) = %v", pub, err)
		}
	})
}

func TestWeakList(t *testing.T) {
	signers := make(map[string]crypto.Signer)
	for _, name := range []string{"sha256", "sha1", "free"} {
		signers[name] = generate(t, keys.P256)
	}
	spki := func(pub crypto.PublicKey) []byte {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	modulus := func(n *big.Int) string {
		digest := sha1.Sum([]byte("Modulus=" + strings.ToUpper(n.Text(16)) + "\n"))
		return hex.EncodeToString(digest[:])
	}
	read := func(text string) *keys.WeakList {
		t.Helper()
		list, err := keys.ReadWeakList(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	mixed := fmt.Sprintf("# made up\n\n%x\r\n  %X # sha1 \n%x\n",
		sha256.Sum256(spki(signers["sha256"].Public())),
		sha1.Sum(spki(signers["sha1"].Public())),
		sha256.Sum256(spki(signers["sha256"].Public())))
	list := read(mixed)
	if list.Len() != 2 {
		t.Errorf("Len = %d, want 2: the double counts once", list.Len())
	}
	r := rsaKey()
	for _, tc := range []struct {
		name string
		list *keys.WeakList
		pub  crypto.PublicKey
		want bool
	}{
		{"nil list", nil, signers["free"].Public(), false},
		{"zero list", new(keys.WeakList), signers["free"].Public(), false},
		{"sha256", list, signers["sha256"].Public(), true},
		{"sha1", list, signers["sha1"].Public(), true},
		{"not listed", list, signers["free"].Public(), false},
		{"rsa not listed", list, r.Public(), false},
		{"rsa by modulus", read(modulus(r.N)), r.Public(), true},
		{"rsa by Debian's form", read(modulus(r.N)[20:]), r.Public(), true},
		{"rsa by sha256", read(hex.EncodeToString(func() []byte { h := sha256.Sum256(spki(r.Public())); return h[:] }())), r.Public(), true},
		{"ec key in a list of moduli", read(modulus(r.N)[20:]), signers["free"].Public(), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.list.Contains(tc.pub)
			if err != nil || got != tc.want {
				t.Errorf("Contains = %v, %v, want %v", got, err, tc.want)
			}
			err = keys.CheckPublicKey(tc.pub, keys.Rules{Weak: tc.list})
			var refused *keys.RefusedError
			if listed := errors.As(err, &refused) && refused.Reason == keys.ListedWeak; listed != tc.want {
				t.Errorf("CheckPublicKey = %v, want listed %v", err, tc.want)
			}
		})
	}
	for _, bad := range []string{"xyz", "00", strings.Repeat("0", 63), strings.Repeat("g", 64), strings.Repeat("0", 65), strings.Repeat("0", 1<<17)} {
		if _, err := keys.ReadWeakList(strings.NewReader("\n" + bad)); err == nil {
			t.Errorf("ReadWeakList(%.20q) = nil, want an error", bad)
		}
	}
}

func FuzzReadWeakList(f *testing.F) {
	f.Add("# comment\n0123456789abcdef0123\n")
	f.Add(strings.Repeat("ab", 32) + "\r\n" + strings.Repeat("CD", 20))
	f.Add("0")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := keys.ReadWeakList(strings.NewReader(text))
		if err == nil && list.Len() > strings.Count(text, "\n")+1 {
			t.Errorf("%d entries in %q", list.Len(), text)
		}
	})
}

func BenchmarkCheckPublicKey(b *testing.B) {
	list, err := keys.ReadWeakList(strings.NewReader(strings.Repeat("00", 32) + "\n" + strings.Repeat("00", 10)))
	if err != nil {
		b.Fatal(err)
	}
	big4096, err := keys.Generate(keys.RSA4096)
	if err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct {
		name  string
		pub   crypto.PublicKey
		rules keys.Rules
	}{
		{"p-256", generate(b, keys.P256).Public(), keys.Rules{}},
		{"p-256 with list", generate(b, keys.P256).Public(), keys.Rules{Weak: list}},
		{"p-384", generate(b, keys.P384).Public(), keys.Rules{}},
		{"p-521", generate(b, keys.P521).Public(), keys.Rules{}},
		{"ed25519", generate(b, keys.Ed25519).Public(), keys.Rules{}},
		{"rsa-2048", rsaKey().Public(), keys.Rules{}},
		{"rsa-2048 with list", rsaKey().Public(), keys.Rules{Weak: list}},
		{"rsa-4096", big4096.Public(), keys.Rules{}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := keys.CheckPublicKey(bc.pub, bc.rules); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
