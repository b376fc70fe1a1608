package der_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/certwright/certwright/pkg/der"
)

// attributeValues generates values that the type's rule allows.
var attributeValues = map[string]struct {
	oid     asn1.ObjectIdentifier
	pattern string
	tag     int
}{
	"C":            {asn1.ObjectIdentifier{2, 5, 4, 6}, `[A-Z]{2}`, asn1.TagPrintableString},
	"serialNumber": {asn1.ObjectIdentifier{2, 5, 4, 5}, `[A-Za-z0-9 '()+,./:=?-]{1,64}`, asn1.TagPrintableString},
	"CN":           {asn1.ObjectIdentifier{2, 5, 4, 3}, `[a-zäöüß漢字 *@]{1,64}`, asn1.TagUTF8String},
	"O":            {asn1.ObjectIdentifier{2, 5, 4, 10}, `[A-Za-z0-9 &]{1,64}`, asn1.TagUTF8String},
	"OU":           {asn1.ObjectIdentifier{2, 5, 4, 11}, `[A-Za-z0-9 &]{1,64}`, asn1.TagUTF8String},
	"DC":           {asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, `[a-z0-9_-]{1,63}`, asn1.TagIA5String},
	"email":        {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, `[a-z]{1,20}@[a-z]{1,20}`, asn1.TagIA5String},
	"other":        {asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1}, `\PC{1,200}`, asn1.TagUTF8String},
}

func drawRDNs(t *rapid.T) [][]der.Attribute {
	kinds := []string{"C", "CN", "DC", "O", "OU", "email", "other", "serialNumber"}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) []der.Attribute {
		var rdn []der.Attribute
		for _, kind := range rapid.SliceOfNDistinct(rapid.SampledFrom(kinds), 1, 3, rapid.ID).Draw(t, "types") {
			v := attributeValues[kind]
			rdn = append(rdn, der.Attribute{Type: v.oid, Value: rapid.StringMatching(v.pattern).Draw(t, kind)})
		}
		return rdn
	}), 0, 5).Draw(t, "rdns")
}

// TestNameAgainstASN1 reads names back and encodes them again with
// encoding/asn1, whose SET OF is sorted too.
func TestNameAgainstASN1(t *testing.T) {
	type typedAttribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	type typedSET []typedAttribute
	rapid.Check(t, func(t *rapid.T) {
		rdns := drawRDNs(t)
		raw, err := der.AppendName(nil, rdns)
		if err != nil {
			t.Fatal(err)
		}
		var sequence pkix.RDNSequence
		if rest, err := asn1.Unmarshal(raw, &sequence); err != nil || len(rest) != 0 {
			t.Fatalf("Unmarshal: %v, %d octets left", err, len(rest))
		}
		typed := make([]typedSET, len(rdns))
		for i, rdn := range rdns {
			for _, a := range rdn {
				tag := 0
				for _, v := range attributeValues {
					if v.oid.Equal(a.Type) {
						tag = v.tag
					}
				}
				typed[i] = append(typed[i], typedAttribute{a.Type, asn1.RawValue{Tag: tag, Bytes: []byte(a.Value)}})
				if !slices.ContainsFunc(sequence[i], func(b pkix.AttributeTypeAndValue) bool {
					return b.Type.Equal(a.Type) && b.Value == a.Value
				}) {
					t.Fatalf("RDN %d: got %v, want %v in it", i, sequence[i], a)
				}
			}
		}
		want, err := asn1.Marshal(typed)
		if err != nil {
			t.Fatal(err)
		}
		// encoding/asn1 takes a type whose name ends in SET for a SET OF.
		if !bytes.Equal(raw, want) {
			t.Fatalf("got %x, want %x", raw, want)
		}
	})
}

func TestNameRefuses(t *testing.T) {
	c, dc, email := asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	for _, test := range []struct {
		name string
		rdns [][]der.Attribute
	}{
		{"empty RDN", [][]der.Attribute{{}}},
		{"empty value", [][]der.Attribute{{cn("")}}},
		{"65 characters", [][]der.Attribute{{cn(strings.Repeat("ä", 65))}}},
		{"invalid UTF-8", [][]der.Attribute{{cn("a\xff")}}},
		{"type twice", [][]der.Attribute{{cn("a"), cn("b")}}},
		{"country of three letters", [][]der.Attribute{{{Type: c, Value: "DEU"}}}},
		{"country of digits", [][]der.Attribute{{{Type: c, Value: "49"}}}},
		{"dc not ASCII", [][]der.Attribute{{{Type: dc, Value: "bücher"}}}},
		{"email not ASCII", [][]der.Attribute{{{Type: email, Value: "ä@example.com"}}}},
		{"serialNumber with underscore", [][]der.Attribute{{{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: "a_b"}}}},
		{"no type", [][]der.Attribute{{{Value: "a"}}}},
	} {
		_, err := der.AppendName(nil, test.rdns)
		wantValueError(t, err, test.name)
	}
	if got := name(t, cn(strings.Repeat("ä", 64))); len(got) < 128 {
		t.Errorf("64 characters of two octets: got %d octets", len(got))
	}
}

func TestGeneralNames(t *testing.T) {
	directory := name(t, cn("a"))
	for _, test := range []struct {
		want string
		gn   der.GeneralName
	}{
		{"8201" + "61", der.DNSName("a")},
		{"8203" + "2a2e61", der.DNSName("*.a")},
		{"8103" + "614062", der.EmailAddress("a@b")},
		{"8605" + "75726e3a61", der.URI("urn:a")},
		{"8704c0000201", der.IPAddress(netip.MustParseAddr("192.0.2.1"))},
		{"8704c0000201", der.IPAddress(netip.MustParseAddr("::ffff:192.0.2.1"))},
		{"871020010db8000000000000000000000001", der.IPAddress(netip.MustParseAddr("2001:db8::1"))},
		{"a40e" + hex.EncodeToString(directory), der.DirectoryName(directory)},
		{"a011060a2b060104018237140203a0030c0161", der.UPN("a")},
		{"a00e06082b06010505070804a0023000", der.HardwareModuleName([]byte{0x30, 0})},
		{"88022a03", der.GeneralName{Tag: der.TagRegisteredID, TypeID: asn1.ObjectIdentifier{1, 2, 3}}},
	} {
		raw, err := der.AppendGeneralNames(nil, []der.GeneralName{test.gn})
		if err != nil {
			t.Errorf("%s: %v", test.gn.Tag, err)
			continue
		}
		if got := hex.EncodeToString(raw[2:]); got != test.want {
			t.Errorf("%s: got %s, want %s", test.gn.Tag, got, test.want)
		}
	}
}

func TestGeneralNamesRefuse(t *testing.T) {
	for _, gn := range []der.GeneralName{
		{},
		{Tag: 3},
		{Tag: 5},
		{Tag: 9},
		{Tag: 255},
		der.DNSName(""), der.DNSName("a."), der.DNSName(".a"), der.DNSName("a..b"), der.DNSName("-a"), der.DNSName("a-"),
		der.DNSName("a b"), der.DNSName("a.*"), der.DNSName("bücher.de"), der.DNSName("*"), der.DNSName(strings.Repeat("a", 64)),
		der.DNSName(strings.Repeat("a.", 127) + "a"), der.DNSName("a\x00b"),
		der.EmailAddress("a"), der.EmailAddress("@b"), der.EmailAddress("a@"), der.EmailAddress("ä@b"), der.EmailAddress(`"a b"@c`), der.EmailAddress("a@b@c"),
		der.URI(""), der.URI("a"), der.URI("http:"), der.URI("//host/path"), der.URI("http://ä/"), der.URI("http://a b/"), der.URI("http://a./"), der.URI("http://[::1"), der.URI("http://a%zz/"),
		der.IPAddress(netip.Addr{}), der.IPAddress(netip.MustParseAddr("fe80::1%eth0")),
		{Tag: der.TagIPAddress, Raw: []byte{1, 2, 3}},
		der.DirectoryName(nil), der.DirectoryName([]byte{0x30}), der.DirectoryName([]byte{0x30, 2, 0x31, 0}),
		der.UPN(""), der.UPN("\xff"), der.HardwareModuleName([]byte{1}), der.OtherName(nil, []byte{5, 0}),
		der.HardwareModuleName([]byte{0x30, 0x80, 0, 0}), der.HardwareModuleName([]byte{5, 0, 5, 0}),
	} {
		_, err := der.AppendGeneralNames(nil, []der.GeneralName{gn})
		wantValueError(t, err, gn.Tag.String()+" "+gn.Text+hex.EncodeToString(gn.Raw))
	}
	_, err := der.AppendGeneralNames(nil, nil)
	wantValueError(t, err, "no names")
}
