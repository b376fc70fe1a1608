//go:build race

package der_test

const many = 50_000
