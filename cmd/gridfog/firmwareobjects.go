package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gridgate/agent/order"
	"gridgate/agent/update"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// release is a signed firmware document.
type release struct {
	path     string
	data     []byte
	d        *order.Document
	manifest *update.Manifest
	hash     string // of what is signed, as gateways tell it
}

// String names it for people.
func (r *release) String() string {
	return fmt.Sprintf("%s v%d (%s)", r.d.Target, r.d.Version, r.manifest.Firmware)
}

func (r *release) site() meter.ID { return meter.ID(r.d.Target.Site) }

func (r *release) topic() string { return orderTopic(r.d.Target, order.KindFirmware) }

// readRelease reads a signed document of firmware. The signatures are not
// verified: the gateways do.
func readRelease(path string) (*release, error) {
	data, err := readDocument(path)
	if err != nil {
		return nil, err
	}
	r, err := parseRelease(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.path = path
	return r, nil
}

func parseRelease(data []byte) (*release, error) {
	d, err := order.Read(data)
	if errors.Is(err, order.ErrUnsigned) && bytes.HasPrefix(data, []byte("gridgate:")) {
		return nil, fmt.Errorf("%w: gridfog sign -key firmware.key signs it", order.ErrUnsigned)
	}
	if err != nil {
		return nil, err
	}
	if d.Kind != order.KindFirmware {
		return nil, fmt.Errorf("it is a document of the kind %s; want firmware", d.Kind)
	}
	m, err := update.ParseManifest(d)
	if err != nil {
		return nil, err
	}
	return &release{data: data, d: d, manifest: m, hash: hex.EncodeToString(d.Hash[:])}, nil
}

// object is what a file travels in, and where it lies.
type object struct {
	update.File
	dir   string
	index []byte
}

func objectPath(dir string, sum [32]byte) string {
	return filepath.Join(dir, hex.EncodeToString(sum[:]))
}

// objects gives what the gateways of a release fetch, each once, when all of it
// is in dir and is what the document says.
func (r *release) objectsIn(dir string) ([]*object, error) {
	var all []*object
	seen := map[[32]byte]bool{}
	for _, board := range slices.Sorted(maps.Keys(r.manifest.Boards)) {
		for _, f := range r.manifest.Boards[board] {
			if seen[f.Object] && seen[f.Index] && seen[f.SHA256] {
				continue
			}
			seen[f.Object], seen[f.Index], seen[f.SHA256] = true, true, true
			o, err := openObject(dir, f)
			if err != nil {
				return nil, fmt.Errorf("%s: %s of %s: %w", r.path, f.Name, board, err)
			}
			all = append(all, o)
		}
	}
	return all, nil
}

// openObject compares an object and its index with what the document says.
func openObject(dir string, f update.File) (*object, error) {
	path := objectPath(dir, f.Object)
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	size, sum, index, err := update.Divide(file, f.Part)
	switch {
	case err != nil:
		return nil, err
	case size != f.Packed || sum != f.Object:
		return nil, fmt.Errorf("%s: damaged: it has %d octets, SHA-256 %x; the document says %d, %x", path, size, sum, f.Packed, f.Object)
	case sha256.Sum256(index) != f.Index:
		return nil, fmt.Errorf("%s: its parts of %d octets are not those of the document", path, f.Part)
	}
	there, err := os.ReadFile(objectPath(dir, f.Index))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(there, index) {
		return nil, fmt.Errorf("%s: damaged: it is not the list of the parts of %s", objectPath(dir, f.Index), path)
	}
	if _, err := file.Seek(0, 0); err != nil {
		return nil, err
	}
	h := sha256.New()
	if err := update.Unpack(h, file, f.Pack, f.Size); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if unpacked := [32]byte(h.Sum(nil)); unpacked != f.SHA256 {
		return nil, fmt.Errorf("%s: unpacked it has the SHA-256 %x; the document says %x", path, unpacked, f.SHA256)
	}
	return &object{File: f, dir: dir, index: index}, nil
}

// each gives the parts of an object with their topics at a site, and its index
// last: who finds that one at a broker need not look for the parts.
func (o *object) each(site meter.ID, use func(topic string, payload []byte) error) error {
	file, err := os.Open(objectPath(o.dir, o.Object))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for i := range int64(o.Parts()) {
		part := make([]byte, min(o.Part, o.Packed-i*o.Part))
		if _, err := file.ReadAt(part, i*o.Part); err != nil {
			return err
		}
		sum := sha256.Sum256(part)
		if !bytes.Equal(sum[:], o.index[i*32:(i+1)*32]) {
			return fmt.Errorf("%s: it changed while it was read", file.Name())
		}
		if err := use(partTopic(site, sum[:]), part); err != nil {
			return err
		}
	}
	return use(o.indexTopic(site), o.index)
}

// topics gives the topics of the index and of all parts of an object.
func (o *object) topics(site meter.ID) []string {
	all := []string{o.indexTopic(site)}
	for sum := range slices.Chunk(o.index, 32) {
		all = append(all, partTopic(site, sum))
	}
	return all
}

func (o *object) indexTopic(site meter.ID) string { return partTopic(site, o.Index[:]) }

func partTopic(site meter.ID, sum []byte) string {
	return mqtt.PartOfFirmware(site, [16]byte(sum[:16]))
}

// readReleases reads the documents of a wave.
func readReleases(list string) ([]*release, error) {
	var all []*release
	for path := range strings.SplitSeq(list, ",") {
		r, err := readRelease(path)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
