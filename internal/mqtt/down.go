package mqtt

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// maxDown bounds the payload of an acknowledgement or a request, in bytes.
const maxDown = 1 << 10

// Confirmation is the payload of an Acknowledgement: the fog has stored the
// lane through Sequence, holes included. It is cumulative.
//
//	{"epoch":"00c0ffee00c0ffee","sequence":1234}
type Confirmation struct {
	Epoch    uint64
	Sequence uint64
}

// AppendJSON appends the payload to b.
func (c Confirmation) AppendJSON(b []byte) []byte {
	return fmt.Appendf(b, `{"epoch":"%016x","sequence":%d}`, c.Epoch, c.Sequence)
}

// ParseConfirmation reads the payload of an Acknowledgement. Fields that it
// does not know are skipped.
func ParseConfirmation(b []byte) (Confirmation, error) {
	d, err := parseDown(b)
	if err != nil || d.Sequence == nil {
		return Confirmation{}, fmt.Errorf("acknowledgement: want {\"epoch\":\"16 hexadecimal digits\",\"sequence\":NUMBER}: %w", orMissing(err))
	}
	return Confirmation{d.epoch, *d.Sequence}, nil
}

// Range is the payload of a ResendRequest: numbers First to Last, both
// included.
//
//	{"epoch":"00c0ffee00c0ffee","first":100,"last":199}
type Range struct {
	Epoch       uint64
	First, Last uint64
}

// AppendJSON appends the payload to b.
func (r Range) AppendJSON(b []byte) []byte {
	return fmt.Appendf(b, `{"epoch":"%016x","first":%d,"last":%d}`, r.Epoch, r.First, r.Last)
}

// ParseRange reads the payload of a ResendRequest. Fields that it does not know
// are skipped. First is 1 at least, and not above Last.
func ParseRange(b []byte) (Range, error) {
	d, err := parseDown(b)
	if err != nil || d.First == nil || d.Last == nil || *d.First == 0 || *d.First > *d.Last {
		return Range{}, fmt.Errorf("resend: want {\"epoch\":\"16 hexadecimal digits\",\"first\":NUMBER,\"last\":NUMBER}, rising from 1 on: %w", orMissing(err))
	}
	return Range{d.epoch, *d.First, *d.Last}, nil
}

// CatalogueRequestOf is the payload of a CatalogueRequest for an earlier
// catalogue; any other is for the newest.
//
//	{"catalogue":"0123456789abcdef"}
func CatalogueRequestOf(hash [8]byte) []byte { return fmt.Appendf(nil, `{"catalogue":"%x"}`, hash) }

// ParseCatalogueRequest gives the hash that a CatalogueRequest names; ok is false
// when it names none.
func ParseCatalogueRequest(b []byte) (hash [8]byte, ok bool) {
	var d struct{ Catalogue string }
	if len(b) > maxDown || json.Unmarshal(b, &d) != nil || len(d.Catalogue) != 16 {
		return hash, false
	}
	_, err := hex.Decode(hash[:], []byte(d.Catalogue))
	return hash, err == nil
}

var errMissing = errors.New("a field is missing or out of range")

func orMissing(err error) error {
	if err == nil {
		return errMissing
	}
	return err
}

type down struct {
	Epoch                 string
	Sequence, First, Last *uint64
	epoch                 uint64
}

func parseDown(b []byte) (d down, err error) {
	if len(b) > maxDown {
		return d, fmt.Errorf("%d bytes, more than %d", len(b), maxDown)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, err
	}
	if d.epoch, err = strconv.ParseUint(d.Epoch, 16, 64); err != nil || len(d.Epoch) != 16 {
		return d, errors.New("epoch: want 16 hexadecimal digits")
	}
	return d, nil
}
