package agent

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"time"
)

// tarball is a .tar.gz in the making (POSIX.1-1988, ustar). archive/tar would
// cost the firmware more than the few files need.
type tarball struct{ b bytes.Buffer }

const tarBlock = 512

// add adds a file; name has at most 99 octets.
func (t *tarball) add(name string, data []byte) {
	var h [tarBlock]byte
	copy(h[0:99], name)
	put := func(at, size int, v int64) { copy(h[at:at+size], fmt.Appendf(nil, "%0*o\x00", size-1, v)) }
	put(100, 8, 0o644)
	put(108, 8, 0)
	put(116, 8, 0)
	put(124, 12, int64(len(data)))
	put(136, 12, max(time.Now().Unix(), 0))
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	copy(h[148:156], "        ")
	sum := int64(0)
	for _, c := range h {
		sum += int64(c)
	}
	copy(h[148:156], fmt.Appendf(nil, "%06o\x00 ", sum))
	t.b.Write(h[:])
	t.b.Write(data)
	t.b.Write(make([]byte, (tarBlock-len(data)%tarBlock)%tarBlock))
}

// addOr adds a file, or why it is not there.
func (t *tarball) addOr(name string, data []byte, err error) {
	if err != nil {
		name, data = name+".error", []byte(err.Error()+"\n")
	}
	t.add(name, data)
}

// gz ends it.
func (t *tarball) gz() ([]byte, error) {
	t.b.Write(make([]byte, 2*tarBlock))
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(t.b.Bytes())
	err = errors.Join(err, z.Close())
	return out.Bytes(), err
}
