// Package page is the local page: one file with its styles, scripts and texts in
// English and Arabic, over the API of docs/openapi.yaml. Its source is in src;
// `go generate` joins that with the tools of scripts/setup.sh, and a test fails
// where it was forgotten.
package page

import (
	"crypto/sha256"
	_ "embed" // the page
	"encoding/hex"
)

//go:generate go test -run ^TestGenerated$ -update

//go:embed page.html.gz
var compressed string

//go:embed policy.txt
var policy string

// Compressed gives the page, compressed with gzip.
func Compressed() []byte { return []byte(compressed) }

// Policy gives the page's Content-Security-Policy, which allows its own style and
// script by their hashes, its own API, and nothing else.
func Policy() string { return policy }

// ETag gives the entity tag of the page, quoted; another page has another.
func ETag() string {
	sum := sha256.Sum256([]byte(compressed))
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}
