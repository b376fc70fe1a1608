package rest

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

func decodeYAML(t *testing.T, b []byte, out any) {
	t.Helper()
	if err := yaml.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
}
