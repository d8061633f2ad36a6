// Package web serves the local page, its API and the metrics over HTTP; read
// only. docs/openapi.yaml is the contract. It knows no stage: the agent gives it
// what it shows.
//
// The page itself comes from agent/web/page, which has
//
//	func Compressed() []byte // the page, compressed with gzip
//	func Policy() string     // its Content-Security-Policy, with hashes for what is inline
package web
