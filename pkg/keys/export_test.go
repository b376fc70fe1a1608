package keys

import (
	"crypto/elliptic"
	"math/big"
)

// KEKOf makes a KEK of a known secret of 32 octets.
func KEKOf(secret [32]byte) *KEK {
	kek, err := newKEK(secret[:], KeyFileKEK, nil)
	if err != nil {
		panic(err)
	}
	return kek
}

var (
	IsSquare    = isSquare
	ClosePrimes = closePrimes
	SmallFactor = smallFactor
	Mod         = mod

	P224 = elliptic.P224
)

const (
	AEADOverhead = aeadOverhead
	WrappedSize  = wrappedSize
)

// EdwardsP is 2^255 - 19.
func EdwardsP() *big.Int { return edwards().p }

// EdwardsD is the curve's constant.
func EdwardsD() *big.Int { return edwards().d }

// SmallOrder are the y coordinates of points of small order.
func SmallOrder() []*big.Int {
	c := edwards()
	return c.smallOrder[:]
}
