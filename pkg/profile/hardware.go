package profile

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certwright/certwright/pkg/der"
)

// hardwareModule is the value of an otherName id-on-hardwareModuleName (RFC 4108, Section 5). People write it as the
// type in dotted numbers, a slash, and the serial number: as text if all of it is visible ASCII, otherwise as 0x and
// hexadecimal digits.
type hardwareModule struct {
	kind   asn1.ObjectIdentifier // hwType
	serial string                // hwSerialNum, any octets
}

// maxHardwareSerial is the longest serial number in octets.
const maxHardwareSerial = 64

var hardwareModuleType = der.HardwareModuleName(nil).TypeID

func isHardwareModule(n *der.GeneralName) bool {
	return n.Tag == der.TagOtherName && n.TypeID.Equal(hardwareModuleType)
}

// parseHardwareModule reads the DER in a name, which csr and ParseSAN put there.
func parseHardwareModule(n *der.GeneralName) (hardwareModule, error) {
	var m hardwareModule
	input := cryptobyte.String(n.Raw)
	var content, serial cryptobyte.String
	if !isHardwareModule(n) || !input.ReadASN1(&content, cbasn1.SEQUENCE) || !input.Empty() ||
		!content.ReadASN1ObjectIdentifier(&m.kind) || !content.ReadASN1(&serial, cbasn1.OCTET_STRING) || !content.Empty() {
		return m, errors.New("a malformed hardware module name")
	}
	m.serial = string(serial)
	return m, m.check()
}

// HardwareModuleText returns the value of an otherName id-on-hardwareModuleName, a HardwareModuleName in DER, as people
// write it behind "HMN:". It reports false when the value is none.
func HardwareModuleText(value []byte) (string, bool) {
	name := der.HardwareModuleName(value)
	m, err := parseHardwareModule(&name)
	return m.String(), err == nil
}

func (m hardwareModule) check() error {
	if len(m.serial) == 0 || len(m.serial) > maxHardwareSerial {
		return fmt.Errorf("a hardware module name whose serial number has %d octets, want 1 to %d", len(m.serial), maxHardwareSerial)
	}
	return nil
}

// readHardwareModule reads the text form.
func readHardwareModule(text string) (hardwareModule, error) {
	dotted, serial, found := strings.Cut(text, "/")
	oid, ok := parseOID(dotted)
	if !found || !ok {
		return hardwareModule{}, fmt.Errorf("%q is not a hardware module name such as 1.3.6.1.4.1.99999.1/SN-0017", clip(text))
	}
	m := hardwareModule{kind: oid, serial: serial}
	if digits, isHex := strings.CutPrefix(serial, "0x"); isHex {
		octets, err := hex.DecodeString(digits)
		if err != nil {
			return m, fmt.Errorf("%q is not a hardware module name: 0x is followed by pairs of hexadecimal digits", clip(text))
		}
		m.serial = string(octets)
	} else if !m.visible() {
		return m, fmt.Errorf("%q is not a hardware module name: write serial numbers with other characters than visible ASCII as 0x and hexadecimal digits", clip(text))
	}
	return m, m.check()
}

func (m hardwareModule) visible() bool {
	return !strings.HasPrefix(m.serial, "0x") && !strings.ContainsFunc(m.serial, func(r rune) bool { return r <= ' ' || r > '~' })
}

// String returns the text form.
func (m hardwareModule) String() string {
	if m.visible() {
		return m.kind.String() + "/" + m.serial
	}
	return m.kind.String() + "/0x" + hex.EncodeToString([]byte(m.serial))
}

// name encodes the value.
func (m hardwareModule) name() (der.GeneralName, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(m.kind)
		b.AddASN1OctetString([]byte(m.serial))
	})
	value, err := b.Bytes()
	return der.HardwareModuleName(value), err
}
