//go:build !race

package der_test

const many = million
