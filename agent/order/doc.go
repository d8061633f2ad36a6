// Package order reads what the utility sends down: signed documents. It is
// pure: it verifies, parses and judges, and does nothing.
//
// A document is one or more signatures, an empty line, and what is signed:
//
//	untrusted comment: signature from minisign secret key
//	RUSR…
//	trusted comment: timestamp:1795362000	file:push.yaml	hashed
//	cMVs…
//
//	gridgate: 1
//	kind: config
//	target: site-3/gw-17
//	version: 42
//	---
//	version: 1
//	site: site-3
//	…
//
// Each signature is what `minisign -S` writes, four lines. What is signed is
// everything after the empty line: a header in YAML, a line of three hyphens,
// and the payload. Signatures are verified before anything is parsed.
//
// A trust document says which keys may sign what. It has to be signed by the
// keys that it replaces and by those that it brings, as many as each asks for.
package order
