package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"
	"math/bits"
	"slices"
	"strconv"
	"sync"

	"github.com/titanous/rocacheck"
)

// Bounds of an RSA public exponent, both allowed. The lower one is that of
// NIST SP 800-56B and FIPS 186-5, Section 5.4 (2^16 < e). The upper one is
// what crypto/rsa can verify with; FIPS would go to 2^256.
const (
	MinRSAExponent = 65537
	MaxRSAExponent = 1<<31 - 1
)

const (
	// smallPrimeBound: no prime below it may divide an RSA modulus. A factor
	// so small is damage or a joke, not an attack; a few thousand is where
	// looking further starts to cost more than verifying a signature.
	smallPrimeBound = 4096

	// fermatRounds is how many candidates Fermat's method tries. It finds
	// primes whose distance is below about 2*sqrt(2*rounds) * N^(1/4):
	// CVE-2022-26320 fell in the first round, CA practice is 100.
	fermatRounds = 100
)

// Reason says why a public key was refused. The zero value means none.
type Reason uint8

// Reasons of a [RefusedError].
const (
	UnsupportedType Reason = iota + 1 // not RSA, ECDSA or Ed25519, or nil
	RSATooShort                       // modulus below MinRSABits
	RSATooLong                        // modulus above MaxRSABits
	RSAExponent                       // even, too small or too large
	RSASmallFactor                    // a small prime divides the modulus
	RSAClosePrimes                    // Fermat's method factors the modulus
	ROCA                              // CVE-2017-15361
	ListedWeak                        // named by the weak-key list
	ECCurve                           // not P-256, P-384 or P-521
	ECPoint                           // not on the curve, or infinity
	Ed25519Point                      // wrong length, not on the curve, or of small order
)

var reasonNames = [...]string{
	UnsupportedType: "unsupported-type",
	RSATooShort:     "rsa-too-short",
	RSATooLong:      "rsa-too-long",
	RSAExponent:     "rsa-exponent",
	RSASmallFactor:  "rsa-small-factor",
	RSAClosePrimes:  "rsa-close-primes",
	ROCA:            "roca",
	ListedWeak:      "listed-weak",
	ECCurve:         "ec-curve",
	ECPoint:         "ec-point",
	Ed25519Point:    "ed25519-point",
}

// String returns a fixed name such as "rsa-too-short", fit for metrics and
// audit records.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return "reason(" + strconv.Itoa(int(r)) + ")"
}

// RefusedError is what [CheckPublicKey] returns for a key it refuses. It
// holds nothing secret and may be shown to the client.
type RefusedError struct {
	Reason Reason
	Detail string // a sentence without capital and full stop
}

func (e *RefusedError) Error() string {
	return "public key refused: " + e.Detail
}

func refuse(reason Reason, format string, args ...any) error {
	return &RefusedError{reason, fmt.Sprintf(format, args...)}
}

// Rules are what the administrator adds to the fixed checks. The zero value
// adds nothing.
type Rules struct {
	Weak *WeakList // keys known to be compromised; nil for none
}

// CheckPublicKey refuses keys that must not be certified. The error is a
// *[RefusedError], unless the key cannot be encoded.
//
// Accepted are RSA of [MinRSABits] to [MaxRSABits] with an odd exponent of
// [MinRSAExponent] to [MaxRSAExponent], without small factors, close primes
// or the ROCA fingerprint; ECDSA on P-256, P-384 or P-521 with a point on the
// curve (RFC 5480, Section 2.2); Ed25519 with a point of large order. It does
// not prove that an RSA modulus has two prime factors, nor that the requester
// holds the private key. It is safe for concurrent use and keeps nothing.
func CheckPublicKey(pub crypto.PublicKey, rules Rules) error {
	var err error
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		err = checkECDSA(k)
	case *rsa.PublicKey:
		err = checkRSA(k)
	case ed25519.PublicKey:
		err = checkEd25519(k)
	default:
		err = refuse(UnsupportedType, "key type %T is not RSA, ECDSA or Ed25519", pub)
	}
	if err != nil || rules.Weak.Len() == 0 {
		return err
	}
	listed, err := rules.Weak.Contains(pub)
	if err != nil {
		return err
	}
	if listed {
		return refuse(ListedWeak, "key is on the list of weak keys")
	}
	return nil
}

func checkECDSA(k *ecdsa.PublicKey) error {
	if k == nil || k.Curve == nil {
		return refuse(UnsupportedType, "ECDSA key is empty")
	}
	switch k.Curve {
	case elliptic.P256(), elliptic.P384(), elliptic.P521():
	default:
		return refuse(ECCurve, "curve %s is not P-256, P-384 or P-521", k.Curve.Params().Name)
	}
	// ECDH checks the point, whoever built the key: range of the coordinates,
	// curve equation, not infinity. It panics without coordinates.
	//lint:ignore SA1019 there is no other way to ask
	if k.X == nil || k.Y == nil {
		return refuse(ECPoint, "ECDSA key has no point")
	}
	if _, err := k.ECDH(); err != nil {
		return refuse(ECPoint, "point is not on curve %s", k.Curve.Params().Name)
	}
	return nil
}

func checkRSA(k *rsa.PublicKey) error {
	if k == nil || k.N == nil || k.N.Sign() <= 0 {
		return refuse(UnsupportedType, "RSA key is empty")
	}
	if n := k.N.BitLen(); n < MinRSABits {
		return refuse(RSATooShort, "RSA key of %d bits is shorter than %d", n, MinRSABits)
	} else if n > MaxRSABits {
		return refuse(RSATooLong, "RSA key of %d bits is longer than %d", n, MaxRSABits)
	}
	if k.E < MinRSAExponent || k.E > MaxRSAExponent || k.E%2 == 0 {
		return refuse(RSAExponent, "RSA exponent %d is not odd and from %d to %d",
			k.E, MinRSAExponent, MaxRSAExponent)
	}
	if p := smallFactor(k.N); p != 0 {
		return refuse(RSASmallFactor, "RSA modulus is divisible by %d", p)
	}
	if rocacheck.IsWeak(k) {
		return refuse(ROCA, "RSA key has the ROCA fingerprint (CVE-2017-15361)")
	}
	if closePrimes(k.N) {
		return refuse(RSAClosePrimes, "primes of the RSA modulus are too close to each other")
	}
	return nil
}

// primeGroup is some odd primes whose product fits a machine word.
type primeGroup struct {
	product uint
	primes  []uint
}

// primeGroups splits the odd primes below smallPrimeBound into groups, so
// that the modulus is divided once a group and not once a prime.
var primeGroups = sync.OnceValue(func() []primeGroup {
	var groups []primeGroup
	composite := make([]bool, smallPrimeBound)
	g := primeGroup{product: 1}
	for p := uint(3); p < smallPrimeBound; p += 2 {
		if composite[p] {
			continue
		}
		for m := p * p; m < smallPrimeBound; m += 2 * p {
			composite[m] = true
		}
		if hi, _ := bits.Mul(g.product, p); hi != 0 {
			groups = append(groups, g)
			g = primeGroup{product: 1}
		}
		g.product *= p
		g.primes = append(g.primes, p)
	}
	return append(groups, g)
})

// smallFactor returns a prime below smallPrimeBound that divides n, or 0.
func smallFactor(n *big.Int) uint {
	if n.Bit(0) == 0 {
		return 2
	}
	for _, g := range primeGroups() {
		r := mod(n, g.product)
		for _, p := range g.primes {
			if r%p == 0 {
				return p
			}
		}
	}
	return 0
}

// mod returns n mod m for n >= 0 without allocating.
func mod(n *big.Int, m uint) uint {
	var r uint
	for _, w := range slices.Backward(n.Bits()) {
		_, r = bits.Div(r, uint(w), m)
	}
	return r
}

// closePrimes runs Fermat's method: with a the ceiling of sqrt(n), n = pq is
// factored as soon as a^2 - n is a square, which is soon if p is near q.
func closePrimes(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	b := new(big.Int).Mul(a, a) // becomes a^2 - n
	one := big.NewInt(1)
	step := new(big.Int).Lsh(a, 1)
	step.Add(step, one) // (a+1)^2 - a^2
	if b.Cmp(n) < 0 {
		b.Add(b, step)
		step.Add(step, big.NewInt(2))
	}
	b.Sub(b, n)
	two := big.NewInt(2)
	for range fermatRounds {
		if isSquare(b) {
			return true
		}
		b.Add(b, step)
		step.Add(step, two)
	}
	return false
}

// squareFilter has true at the quadratic residues of each of its moduli. It
// lets 1 in 60 numbers through.
var squareFilter = sync.OnceValue(func() map[uint][]bool {
	filter := make(map[uint][]bool)
	for _, m := range []uint{3, 5, 7, 11, 13, 17} {
		residues := make([]bool, m)
		for i := range m {
			residues[i*i%m] = true
		}
		filter[m] = residues
	}
	return filter
})

// isSquare tells whether n >= 0 is a perfect square.
func isSquare(n *big.Int) bool {
	// Squares are 0, 1, 4, 9, 16, 17 and so on mod 64: 12 residues of 64.
	const squaresMod64 = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 |
		1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57
	if w := n.Bits(); len(w) > 0 && uint64(squaresMod64)>>(w[0]&63)&1 == 0 {
		return false
	}
	r := mod(n, 3*5*7*11*13*17)
	for m, residues := range squareFilter() {
		if !residues[r%m] {
			return false
		}
	}
	root := new(big.Int).Sqrt(n)
	return root.Mul(root, root).Cmp(n) == 0
}

// edwards are the constants of RFC 8032, Section 5.1, and the y coordinates of
// the points whose order divides 8: 1 (order 1), -1 (2), 0 (4) and two of
// order 8, each shared by P and -P.
var edwards = sync.OnceValue(func() (c struct {
	p, d       *big.Int
	smallOrder [5]*big.Int
},
) {
	c.p = new(big.Int).Lsh(big.NewInt(1), 255)
	c.p.Sub(c.p, big.NewInt(19))
	c.d = new(big.Int).ModInverse(big.NewInt(121666), c.p)
	c.d.Mul(c.d, big.NewInt(-121665))
	c.d.Mod(c.d, c.p)
	order8, _ := new(big.Int).SetString("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826", 16)
	c.smallOrder = [...]*big.Int{
		big.NewInt(1),
		new(big.Int).Sub(c.p, big.NewInt(1)),
		new(big.Int),
		order8,
		new(big.Int).Sub(c.p, order8),
	}
	return c
})

// checkEd25519 decodes the y coordinate and looks for an x (RFC 8032, Section
// 5.1.3), and refuses the points of small order: signatures under such a key
// verify for anybody.
func checkEd25519(k ed25519.PublicKey) error {
	if len(k) != ed25519.PublicKeySize {
		return refuse(Ed25519Point, "Ed25519 key has %d octets instead of %d", len(k), ed25519.PublicKeySize)
	}
	c := edwards()
	buf := slices.Clone(k)
	slices.Reverse(buf)
	buf[0] &= 0x7f // the sign of x
	y := new(big.Int).SetBytes(buf)
	if y.Cmp(c.p) >= 0 {
		return refuse(Ed25519Point, "Ed25519 key is not in its canonical form")
	}
	for _, small := range c.smallOrder {
		if y.Cmp(small) == 0 {
			return refuse(Ed25519Point, "Ed25519 key is a point of small order")
		}
	}
	// x^2 = (y^2 - 1) / (d y^2 + 1). The denominator is never 0, and u/v is a
	// square exactly when uv is.
	y2 := new(big.Int).Mul(y, y)
	y2.Mod(y2, c.p)
	v := new(big.Int).Mul(c.d, y2)
	v.Add(v, big.NewInt(1))
	uv := v.Mul(v, y2.Sub(y2, big.NewInt(1)))
	if big.Jacobi(uv.Mod(uv, c.p), c.p) < 0 {
		return refuse(Ed25519Point, "Ed25519 key is not a point on the curve")
	}
	return nil
}
