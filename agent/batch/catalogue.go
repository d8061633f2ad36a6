package batch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"

	"gridgate/internal/column"
	"gridgate/internal/wire"
)

// Hash names a catalogue: the first eight bytes of the SHA-256 of its bytes.
type Hash [8]byte

// String gives 16 hexadecimal digits, as in the topic.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// HashOf gives the hash of a catalogue's bytes.
func HashOf(b []byte) Hash {
	sum := sha256.Sum256(b)
	return Hash(sum[:8])
}

// Catalogue numbers the meters and channels that batches speak of, so that
// these need not name them. A number never changes its meaning: a catalogue
// grows, and each state of it has a hash of its own.
//
//	Catalogue  1 plain     Dict (gridgate/internal/column), as it is
//	           2 size      length of the Dict when inflated
//	           3 deflated  Dict, deflated (RFC 1951, no header); in place of 1
//	           5 format    1
//
// A channel stands in it once for each kind, scale and unit that it had.
// The zero value is not usable. A Catalogue is not safe for concurrent use
// while it is added to.
type Catalogue struct {
	dict  *column.Dict
	bytes []byte // what AppendBinary gives; nil when not made yet
	hash  Hash   // of bytes
}

// NewCatalogue gives an empty catalogue.
func NewCatalogue() *Catalogue { return &Catalogue{dict: column.NewDict()} }

// Add adds the meters and channels of rows, and says whether the catalogue is
// now another one, which must be published before batches that name it. A
// catalogue that is full starts anew with these rows. A row that no catalogue
// can have is left out; Append says what is wrong with it.
func (c *Catalogue) Add(rows []Row) bool {
	added, err := c.dict.Add(rows)
	if errors.Is(err, column.ErrDictFull) {
		c.dict = column.NewDict()
		added, _ = c.dict.Add(rows)
	}
	if added {
		c.bytes = nil
	}
	return added
}

// Snapshot gives the catalogue as it is now, to be sent again when it has grown.
// It shares memory with c, and must not be added to.
func (c *Catalogue) Snapshot() *Catalogue { return &Catalogue{dict: c.dict.Snapshot()} }

// Hash names the catalogue as it is now.
func (c *Catalogue) Hash() Hash {
	c.encode()
	return c.hash
}

// Len is how many bytes AppendBinary appends.
func (c *Catalogue) Len() int {
	c.encode()
	return len(c.bytes)
}

// Empty says whether nothing was added yet.
func (c *Catalogue) Empty() bool { return len(c.dict.Meters()) == 0 && len(c.dict.Channels()) == 0 }

// grewFrom says whether all numbers of old have their meaning in c.
func (c *Catalogue) grewFrom(old *Catalogue) bool {
	if c == old || old == nil {
		return true
	}
	m, n := old.dict.Meters(), old.dict.Channels()
	mine, ours := c.dict.Meters(), c.dict.Channels()
	return len(mine) >= len(m) && len(ours) >= len(n) && slices.Equal(mine[:len(m)], m) && slices.Equal(ours[:len(n)], n)
}

// Meters gives the meters by number, each with the serial number it had.
func (c *Catalogue) Meters() []CatalogueMeter { return slices.Clone(c.dict.Meters()) }

// Channels gives the channels by number, each with kind, scale and unit.
func (c *Catalogue) Channels() []CatalogueChannel { return slices.Clone(c.dict.Channels()) }

// AppendBinary appends the bytes that are published. It never fails.
func (c *Catalogue) AppendBinary(b []byte) ([]byte, error) {
	c.encode()
	return append(b, c.bytes...), nil
}

func (c *Catalogue) encode() {
	if c.bytes != nil {
		return
	}
	c.bytes = wire.AppendUint(c.dict.AppendPacked(nil), numCatalogueFormat, catalogueFormat)
	c.hash = HashOf(c.bytes)
}

// catalogueFormat is the version of the catalogue's format. That of batches
// goes its own way.
const catalogueFormat = 1

const numCatalogueFormat = 5

// ParseCatalogue reads a catalogue. It keeps nothing of b. Its Hash is that of
// b, whoever wrote it.
func ParseCatalogue(b []byte) (*Catalogue, error) {
	for rest := b; len(rest) > 0; {
		f, after, err := wire.Next(rest)
		if err == nil && f.Num == numCatalogueFormat {
			var format uint64
			if format, err = f.Uint(math.MaxUint64); err == nil && format > catalogueFormat {
				return nil, fmt.Errorf("catalogue: %w", &FormatError{format, catalogueFormat})
			}
		}
		if err != nil {
			return nil, fmt.Errorf("catalogue: %w: %w", ErrCorrupt, err)
		}
		rest = after
	}
	d, err := column.ParsePackedDict(b)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	return &Catalogue{dict: d, bytes: slices.Clone(b), hash: HashOf(b)}, nil
}
