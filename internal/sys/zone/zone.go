// Package zone knows the time zones of the world, without zone files of the
// system: gateways have none.
//
// zones.bin holds Go's own zone data, deflated: the number of names; for each its
// length, the name, and the number of its zone, from 0 on; then for each zone the
// length of its data, and the data (RFC 8536). Numbers are unsigned varints.
package zone

import (
	"bufio"
	"bytes"
	"compress/flate"
	_ "embed"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

//go:generate go run generate.go

//go:embed zones.bin
var zones string

// Load gives the time zone of a name such as Europe/Berlin, as time.LoadLocation
// does: the system's, where it has it, or else that of the program.
func Load(name string) (*time.Location, error) {
	l, err := time.LoadLocation(name)
	if err == nil {
		return l, nil
	}
	data, found := embedded(name)
	if found != nil {
		return nil, found
	}
	if data == nil {
		return nil, err
	}
	return time.LoadLocationFromTZData(name, data)
}

// most is longer than any name, and any zone's data: zones.bin is ours, and
// still nothing is allocated by what a damaged one says.
const most = 1 << 16

// embedded gives a zone's data, nil where there is none of that name.
func embedded(name string) ([]byte, error) {
	r := archive{r: bufio.NewReader(flate.NewReader(bytes.NewReader([]byte(zones))))}
	n, which := r.number(), -1
	for range n {
		is := string(r.octets(r.number())) == name
		if at := r.number(); is {
			which = at
		}
	}
	if which < 0 {
		return nil, r.err
	}
	for range which {
		r.octets(r.number())
	}
	data := r.octets(r.number())
	return data, r.err
}

// archive is zones.bin, inflated, as it is read. After an error it gives zeros.
type archive struct {
	r   *bufio.Reader
	err error
}

func (a *archive) number() int {
	if a.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(a.r)
	if err == nil && n > most {
		err = fmt.Errorf("%d; at most %d can be", n, most)
	}
	if err != nil {
		a.err = fmt.Errorf("zone data: %w", err)
		return 0
	}
	return int(n)
}

func (a *archive) octets(n int) []byte {
	b := make([]byte, n)
	if a.err == nil {
		if _, err := io.ReadFull(a.r, b); err != nil {
			a.err = fmt.Errorf("zone data: %w", err)
		}
	}
	return b
}
