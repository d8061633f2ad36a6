package configs

import (
	"bytes"
	"compress/flate"
	_ "embed" // for models.bin
	"io"
	"strings"
	"sync"
)

//go:generate go run modelpack.go

// packed holds the files in models, deflated: the name of each without its ending,
// a NUL, its text, a NUL; sorted by name.
//
//go:embed models.bin
var packed []byte

type modelText struct {
	name, text string
}

// modelTexts gives the register maps and models that are built in, by file name.
//
//nolint:gochecknoglobals // inflated once
var modelTexts = sync.OnceValue(func() []modelText {
	var all []modelText
	for s := string(inflate(packed)); ; {
		name, rest, _ := strings.Cut(s, "\x00")
		text, more, ok := strings.Cut(rest, "\x00")
		if !ok {
			return all
		}
		all, s = append(all, modelText{name, text}), more
	}
})

// inflate gives what is packed. A test reads everything that there is.
func inflate(packed []byte) []byte {
	plain, _ := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	return plain
}

// packedModel gives the file of a model that is built in, nil where there is none.
func packedModel(name string) []byte {
	for _, m := range modelTexts() {
		if m.name == name {
			return []byte(m.text)
		}
	}
	return nil
}
