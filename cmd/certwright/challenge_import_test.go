package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/certwright/certwright/pkg/client"
)

func TestParseDevices(t *testing.T) {
	t.Parallel()
	wishes, lines, err := parseDevices([]byte("\xef\xbb\xbfSANs, Device ,note\r\nDNS:a  DNS:b,a,\r\n,\"two\nlines\",\"\"\n,'=c,x\n"), client.CreateChallengeRequest{Note: "spare", Profile: "p"})
	if err != nil {
		t.Fatal(err)
	}
	want := []client.CreateChallengeRequest{
		{SANs: []string{"DNS:a", "DNS:b"}, Device: "a", Note: "spare", Profile: "p"}, {Device: "two\nlines", Note: "spare", Profile: "p"}, {Device: "=c", Note: "x", Profile: "p"},
	}
	if !reflect.DeepEqual(wishes, want) || !reflect.DeepEqual(lines, []int{2, 3, 5}) {
		t.Errorf("%+v, lines %v", wishes, lines)
	}
	for _, text := range []string{"device;subject;sans\na;CN=a,O=b;DNS:a DNS:b\n", "\xef\xbb\xbfdevice\tsubject\tsans\r\na\tCN=a,O=b\tDNS:a DNS:b\r\n", "subject,sans,device\n\"CN=a,O=b\",DNS:a DNS:b,a\n"} {
		wishes, _, err := parseDevices([]byte(text), client.CreateChallengeRequest{})
		if want := []client.CreateChallengeRequest{{Device: "a", Subject: "CN=a,O=b", SANs: []string{"DNS:a", "DNS:b"}}}; err != nil || !reflect.DeepEqual(wishes, want) {
			t.Errorf("%q: %+v, %v", text, wishes, err)
		}
	}
	// As the registry reads and writes them.
	wishes, _, err = parseDevices([]byte("Id;group;label:Site;sans;status\na;g;B;DNS:a,b;expected\n"), client.CreateChallengeRequest{})
	if err != nil || !reflect.DeepEqual(wishes, []client.CreateChallengeRequest{{Device: "a", SANs: []string{"DNS:a,b"}}}) {
		t.Errorf("%+v, %v", wishes, err)
	}
	for text, part := range map[string]string{
		"id,device\na,b\n": "stands twice", "group,label:x\na,b\n": "no column device",
		"": "empty", "device\n": "no line with a device", "device,mac\na,b\n": `no column "mac"`, "device,device\n": "stands twice", "device,note\na\n": "line 2", "device\n\"a\n": "line",
	} {
		if _, _, err := parseDevices([]byte(text), client.CreateChallengeRequest{}); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v, want an error with %q", text, err, part)
		}
	}
}

func FuzzParseDevices(f *testing.F) {
	f.Add([]byte("device,subject,sans,profile,validity,note\na,CN=a,DNS:a DNS:b,p,7d,x\n"))
	f.Add([]byte("\xef\xbb\xbfdevice\n'=a\n"))
	f.Add([]byte("device;note\na;\"x;y\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		wishes, lines, err := parseDevices(text, client.CreateChallengeRequest{})
		if err == nil && (len(wishes) == 0 || len(wishes) != len(lines)) {
			t.Errorf("%q: %d wishes, %d lines", text, len(wishes), len(lines))
		}
	})
}
