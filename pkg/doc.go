// Package pkg holds no code of its own: it is the folder of all of Certwright's
// packages, and its tests keep their order.
//
// One package is a public promise: [github.com/certwright/certwright/pkg/client], the
// Go client of the REST API. pkg/relying, for servers that check certificates, will be
// the second. Their exported names change only as semantic versioning allows.
//
// All other packages serve the program in cmd/certwright and may change before 1.0 in
// any release; pkg/internal holds helpers of tests.
//
// Packages stand on floors, and each imports only from the floors below it. The table
// and the test that enforces it are in layers_test.go.
package pkg
