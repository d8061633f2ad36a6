package dlmstest

import (
	"sync"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// The states of an image transfer.
const (
	imageNone      = 0
	imageInitiated = 1
	imageVerifying = 2
	imageVerified  = 3
	imageWrong     = 4
	imageActivated = 6
)

// maxImage is the longest image that is taken, in octets.
const maxImage = 1 << 20

// image is what an object of class 18 keeps.
type image struct {
	mu      sync.Mutex
	enabled bool
	state   byte
	name    string
	octets  []byte
	size    int
	have    []bool // by block
	block   int
	ImageOptions
	looks int // how often it was asked since the verification began
}

// ImageOptions is what an image transfer is like.
type ImageOptions struct {
	// Activated, if not nil, is given the image when it is activated.
	Activated func(name string, octets []byte)
	// Lose says which blocks get lost within the meter, though it says that it
	// has taken them; it is asked each time that one comes. nil loses none.
	Lose func(block uint32) bool
	// Looks is how often the status is read as verifying before the verification
	// is over; until then the method gives temporary failure. 0 is at once.
	Looks int
	// Wrong says whether an image is none; nil takes all.
	Wrong func(octets []byte) bool
}

// ImageTransfer gives an object of class 18 (IEC 62056-6-2, 4.5.6) that takes
// images in blocks of so many octets, and is enabled. activated, if not nil,
// is given the image when it is activated.
func ImageTransfer(code obis.Code, block uint16, activated func(name string, octets []byte)) Object {
	return ImageTransferWith(code, block, ImageOptions{Activated: activated})
}

// ImageTransferWith is ImageTransfer with more to it.
func ImageTransferWith(code obis.Code, block uint16, o ImageOptions) Object {
	i := &image{enabled: true, block: max(int(block), 1), ImageOptions: o}
	return Object{
		Class: 18, Code: code, Attributes: []int8{2, 3, 4, 5, 6, 7}, Settable: []int8{5}, Methods: []int8{1, 2, 3, 4},
		Read: i.read, Write: i.write, Act: i.act,
	}
}

func (i *image) read(id int8, rows *Selection) (axdr.Value, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case rows != nil:
	case id == 2:
		return axdr.DoubleLongUnsigned(uint32(i.block)), true
	case id == 3:
		bits := make([]byte, (len(i.have)+7)/8)
		for n, have := range i.have {
			if have {
				bits[n/8] |= 0x80 >> (n % 8)
			}
		}
		return axdr.BitString(string(bits), len(i.have)), true
	case id == 4:
		return axdr.DoubleLongUnsigned(uint32(i.missing())), true
	case id == 5:
		return axdr.Boolean(i.enabled), true
	case id == 6:
		if i.state == imageVerifying {
			if i.looks++; i.looks > i.Looks {
				i.judge()
			}
		}
		return axdr.Enum(i.state), true
	case id == 7 && i.state < imageVerified:
		return axdr.Array(), true
	case id == 7: // size, name, signature
		return axdr.Array(axdr.Structure(
			axdr.DoubleLongUnsigned(uint32(i.size)), axdr.OctetString(i.name), axdr.OctetString(""))), true
	}
	return axdr.Value{}, false
}

// missing is the first block that has not come, or the number of blocks.
func (i *image) missing() int {
	for n, have := range i.have {
		if !have {
			return n
		}
	}
	return len(i.have)
}

func (i *image) write(id int8, v axdr.Value) Result {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case id != 5:
		return ReadWriteDenied
	case v.Tag != axdr.TagBoolean:
		return TypeUnmatched
	}
	i.enabled = v.Num != 0
	return Success
}

func (i *image) act(id int8, v axdr.Value) (axdr.Value, Result) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case !i.enabled:
		return axdr.Value{}, ReadWriteDenied
	case id == 1:
		return axdr.Value{}, i.initiate(v)
	case id == 2:
		return axdr.Value{}, i.transfer(v)
	case id == 3 && i.state >= imageInitiated && i.missing() == len(i.have):
		if i.Looks > 0 && i.state == imageInitiated {
			i.state, i.looks = imageVerifying, 0
			return axdr.Value{}, TemporaryFailure
		}
		i.judge()
		if i.state == imageWrong {
			return axdr.Value{}, OtherReason
		}
		return axdr.Value{}, Success
	case id == 4 && i.state == imageVerified:
		i.state = imageActivated
		if i.Activated != nil {
			i.Activated(i.name, i.octets)
		}
		return axdr.Value{}, Success
	case id == 3, id == 4:
		return axdr.Value{}, OtherReason
	}
	return axdr.Value{}, ReadWriteDenied
}

// judge ends the verification.
func (i *image) judge() {
	if i.state = imageVerified; i.Wrong != nil && i.Wrong(i.octets) {
		i.state = imageWrong
	}
}

// initiate takes name and size.
func (i *image) initiate(v axdr.Value) Result {
	if len(v.Items) != 2 || v.Items[0].Tag != axdr.TagOctetString || v.Items[1].Tag != axdr.TagDoubleLongUnsigned {
		return TypeUnmatched
	}
	size := v.Items[1].Num
	if size == 0 || size > maxImage {
		return OtherReason
	}
	i.name, i.size, i.state = v.Items[0].Str, int(size), imageInitiated
	i.octets = make([]byte, size)
	i.have = make([]bool, (i.size+i.block-1)/i.block)
	return Success
}

// transfer takes the number of a block and its octets.
func (i *image) transfer(v axdr.Value) Result {
	if len(v.Items) != 2 || v.Items[0].Tag != axdr.TagDoubleLongUnsigned || v.Items[1].Tag != axdr.TagOctetString {
		return TypeUnmatched
	}
	n := v.Items[0].Num
	if i.state == imageNone || i.state >= imageVerified || n >= uint64(len(i.have)) {
		return OtherReason
	}
	at := int(n) * i.block
	if len(v.Items[1].Str) != min(i.block, i.size-at) {
		return OtherReason
	}
	if i.Lose != nil && i.Lose(uint32(n)) {
		return Success
	}
	copy(i.octets[at:], v.Items[1].Str)
	i.have[n] = true
	return Success
}
