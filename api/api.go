// Package api holds the description of the REST API, OpenAPI 3.1, as it is published with a release. The server makes
// its own from its routes; a test keeps the two the same.
package api

import _ "embed"

// OpenAPI is the description, in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte
