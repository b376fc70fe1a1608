package csr

import (
	"bytes"
	"encoding/pem"
	"strings"
	"unicode/utf16"
)

var (
	bom       = []byte("\xef\xbb\xbf")
	pemBegin  = []byte("-----BEGIN ")
	derHint   = "send the request as PEM (-----BEGIN CERTIFICATE REQUEST-----) or DER, alone"
	utf16Mark = []byte("\xff\xfe") // what PowerShell's > writes
)

// decode returns the DER of the one request that b holds, in memory of its own.
func decode(b []byte) ([]byte, error) {
	if len(b) > MaxBytes {
		return nil, bad("the request has more than %d octets", MaxBytes).WithHint("%s", derHint)
	}
	if len(b) == 0 {
		return nil, bad("the request is empty").WithHint("%s", derHint)
	}
	// DER may hold the PEM marker in a name, and text before PEM may begin with "0", so the outer length decides.
	if n, ok := outerLength(b); ok && n == len(b) {
		return bytes.Clone(b), nil
	}
	text := b
	if bytes.HasPrefix(text, utf16Mark) && len(text)%2 == 0 {
		units := make([]uint16, 0, len(text)/2)
		for i := 2; i < len(text); i += 2 {
			units = append(units, uint16(text[i])|uint16(text[i+1])<<8)
		}
		text = []byte(string(utf16.Decode(units)))
	}
	text = bytes.TrimPrefix(text, bom)
	if !bytes.Contains(text, pemBegin) {
		if n, ok := outerLength(b); ok {
			if n < len(b) {
				return nil, bad("%d octets follow the request", len(b)-n).WithHint("%s", derHint)
			}
			return nil, bad("the request is cut off: %d octets of %d", len(b), n).WithHint("%s", derHint)
		}
		return nil, bad("the request is neither DER nor PEM").WithHint("%s", derHint)
	}
	return decodePEM(text)
}

func decodePEM(text []byte) ([]byte, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return nil, bad("a private key came with the request").
			WithHint("make a new key: this one has left its owner; then send the request alone")
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	if n := bytes.Count(text, pemBegin); n != 1 {
		return nil, bad("%d PEM blocks, want exactly one", n).WithHint("send one request at a time, without certificates or keys")
	}
	text = text[bytes.Index(text, pemBegin):]
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, bad("the PEM block is damaged").WithHint("copy it whole, from -----BEGIN to -----END, dashes included")
	}
	switch block.Type {
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST": // RFC 7468, Section 7
	case "CERTIFICATE":
		return nil, bad("this is a certificate, not a certificate request").WithHint("%s", derHint)
	default:
		return nil, bad("the PEM block is no certificate request").WithHint("%s", derHint)
	}
	if len(block.Headers) != 0 {
		return nil, bad("the PEM block has headers, as encrypted ones have").WithHint("%s", derHint)
	}
	if len(strings.TrimSpace(string(rest))) != 0 {
		return nil, bad("something follows the PEM block").WithHint("%s", derHint)
	}
	if n, ok := outerLength(block.Bytes); !ok || n != len(block.Bytes) {
		return nil, bad("what the PEM block holds is not one DER structure").WithHint("copy the block whole, dashes included")
	}
	return block.Bytes, nil
}

// outerLength returns the octets of the SEQUENCE that b begins with; ok is false when it begins with none. Lengths
// beyond MaxBytes do not matter, so three octets of length are the most.
func outerLength(b []byte) (n int, ok bool) {
	if len(b) < 2 || b[0] != 0x30 {
		return 0, false
	}
	octets := int(b[1]) & 0x7f
	if b[1] < 0x80 {
		return 2 + octets, true
	}
	if octets < 1 || octets > 3 || len(b) < 2+octets {
		return 0, false
	}
	for _, c := range b[2 : 2+octets] {
		n = n<<8 | int(c)
	}
	return 2 + octets + n, true
}
