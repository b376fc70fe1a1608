package document

import (
	"errors"
	"fmt"
	"strings"
)

// ScanTemplate takes a text with placeholders in braces apart, from left to right. literal is called with what stands
// between them, in which {{ and }} are braces, unless that is empty; placeholder with what stands in a pair of braces. Its
// errors end the scan. Other errors say what is wrong with the braces.
func ScanTemplate(text string, literal func(string), placeholder func(string) error) error {
	var pending strings.Builder
	flush := func() {
		if pending.Len() > 0 {
			literal(pending.String())
			pending.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case (c == '{' || c == '}') && strings.HasPrefix(text[i+1:], string(c)):
			pending.WriteByte(c)
			i++
		case c == '}':
			return errors.New("a closing brace without an opening one; write }} for the character")
		case c == '{':
			end := strings.IndexByte(text[i:], '}')
			if end < 0 {
				return errors.New("an opening brace without a closing one; write {{ for the character")
			}
			flush()
			if err := placeholder(text[i+1 : i+end]); err != nil {
				return err
			}
			i += end
		default:
			pending.WriteByte(c)
		}
	}
	flush()
	return nil
}

// PercentEncode writes all but the unreserved characters of RFC 3986, Section 2.3, as octets.
func PercentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
