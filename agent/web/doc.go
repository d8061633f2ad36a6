// Package web serves the local page, its API and the metrics over HTTP; read
// only. docs/openapi.yaml is the contract. It knows no stage: the agent gives it
// what it shows.
//
// The page itself comes from agent/web/page, which has
//
//	func Compressed() []byte // the page, compressed with gzip
//	func ETag() string       // of the page, with its quotes
//	func Policy() string     // the Content-Security-Policy: hashes for what is inline, nothing from elsewhere
package web
