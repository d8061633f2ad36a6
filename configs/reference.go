package configs

import _ "embed" // for the documents below

// reference is reference.yaml, deflated; see modelpack.go.
//
//go:embed reference.bin
var reference []byte

//go:embed demo.yaml
var demo []byte

// Reference gives the document that explains every key and shows its default.
func Reference() []byte { return inflate(reference) }

// Demo gives the configuration of the demo.
func Demo() []byte { return append([]byte(nil), demo...) }
