// Package state keeps the few things that must not be lost or go backwards
// with the readings: they are neither set aside with a damaged readings.db nor
// restored from a backup. A lost count of failed passwords locks a meter; a
// counter that went backwards would be a reused nonce and a replayed order.
//
// It is kept twice, in state.db and state.db.2, which are whole copies:
//
//	 0  4  magic       "GGST"
//	 4  2  version     1
//	 6  2  zero
//	 8  8  generation  rising with every write
//	16  4  length      of the records
//	20  4  crc         CRC-32C of octets 0 to 19 and of the records
//	24     records     rising by kind, then key:
//	       1    kind
//	       var  length of the key (uvarint), key
//	       var  length of the value (uvarint), value
//
// Numbers are little endian; octets after the records are left from a longer
// write. Records of a kind that this version does not know are kept.
//
// A write overwrites one copy, syncs it, then the other: a cut at any moment
// leaves one whole copy, and a write that returned is in both. When a copy does
// not read, the other replaces it. When neither does, Open says ErrLost and
// the caller decides (Renew).
package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	magic   = "GGST"
	version = 1
	header  = 24
	// maxRecords bounds a copy: far above what is ever in it, far below what
	// would hurt.
	maxRecords = 4 << 20
)

// copies are the names of the two files.
func copies() [2]string { return [2]string{"state.db", "state.db.2"} }

var (
	// ErrLost says that both copies are there and neither reads, or that one
	// does not read and the other is gone.
	ErrLost = errors.New("both copies of the state are lost: control stays locked until the fog anchors it anew")
	// ErrInUse says that another process has the state open.
	ErrInUse = errors.New("in use by another process")
	// ErrClosed says that the state was closed.
	ErrClosed = errors.New("closed")
)

// FormatError says that a copy is of a format that this version does not know.
// Nothing was touched.
type FormatError struct {
	Path         string
	Found, Known uint16
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("state %s: format %d is newer than this program's %d: install the version that wrote it", e.Path, e.Found, e.Known)
}

// State is the open state. Its methods are safe for concurrent use. A setter
// is durable when it returns nil; when it returns an error, the new value may
// be on the disk or not, and calling it again decides.
type State struct {
	dir      string
	lock     *os.File
	fresh    bool
	repaired bool

	mu         sync.Mutex
	records    []record // rising by kind and key
	generation uint64
	dirty      bool // a write failed: the copies may be behind records
	counters   map[string]counter
	received   map[string]int64 // what the copies hold of received counters that rose since
	pending    bool             // records have what the copies may lack after a crash
	closed     bool
	held       error              // why nothing can be written, see Hold
	touched    map[recordKey]bool // records that were changed while held
}

type record struct {
	kind  byte
	key   string
	value []byte
}

// Open opens the state in dir and makes it when neither copy is there. A copy
// that does not read is replaced by the other.
func Open(dir string) (*State, error) { return openIn(dir, false) }

// OpenUsed is Open where there should be a state: one that begins anew is Lost
// from its first write on.
func OpenUsed(dir string) (*State, error) { return openIn(dir, true) }

func openIn(dir string, used bool) (*State, error) {
	s, err := open(dir, used)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", dir, err)
	}
	return s, nil
}

// Renew begins anew after ErrLost: it moves what is left of the copies aside,
// with the date in their names, and marks the new state as Lost.
func Renew(dir string, now time.Time) (*State, error) {
	for _, name := range copies() {
		path := filepath.Join(dir, name)
		err := os.Rename(path, path+".lost-"+now.UTC().Format("20060102T150405Z"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("state %s: %w", dir, err)
		}
	}
	s, err := OpenUsed(dir)
	if err != nil {
		return nil, err
	}
	if err := s.SetLost(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func open(dir string, used bool) (_ *State, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &State{dir: dir, counters: map[string]counter{}, received: map[string]int64{}}
	if s.lock, err = takeLock(filepath.Join(dir, "state.db.lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unlock(s.lock)
		}
	}()
	var found [2]copyFile
	for i, name := range copies() {
		if found[i], err = readCopy(filepath.Join(dir, name), os.O_RDWR); err != nil {
			return nil, err
		}
	}
	best := 0
	if found[1].whole && (!found[0].whole || found[1].generation > found[0].generation) {
		best = 1
	}
	switch other := 1 - best; {
	case !found[best].whole && !found[0].there && !found[1].there:
		if s.fresh = true; used {
			s.put(kindLost, "", []byte{1})
		}
		if err := s.write(); err != nil {
			return nil, err
		}
	case !found[best].whole:
		return nil, ErrLost
	default:
		s.records, s.generation = found[best].records, found[best].generation
		if !bytes.Equal(found[best].octets, found[other].octets) {
			s.repaired = !found[other].whole
			if err := s.replace(copies()[other], found[best].octets); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// unlock lets go of the lock. Closing alone would leave it to a child between
// fork and exec.
func unlock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}

// Fresh says that Open found neither copy and began anew.
func (s *State) Fresh() bool { return s.fresh }

// Repaired says that Open found one copy damaged or gone and replaced it.
func (s *State) Repaired() bool { return s.repaired }

// Close writes what may wait for a write (see NoteReceived) and lets go of the
// state. Closing twice is no error.
func (s *State) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if s.held != nil { // there is nothing to write, and no lock
		s.closed = true
		return nil
	}
	err := s.flush()
	s.closed = true
	return errors.Join(err, unlock(s.lock))
}

// get gives the value of a record, nil when there is none. Do not change it.
func (s *State) get(kind byte, key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.find(kind, key); ok {
		return s.records[i].value
	}
	return nil
}

func (s *State) find(kind byte, key string) (int, bool) {
	return slices.BinarySearchFunc(s.records, record{kind: kind, key: key}, compareRecords)
}

func compareRecords(a, b record) int {
	if a.kind != b.kind {
		return int(a.kind) - int(b.kind)
	}
	return strings.Compare(a.key, b.key)
}

// set stores a record, or removes it when value is nil, and returns when both
// copies have it. What is so already is not written again.
func (s *State) set(kind byte, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil && !s.closed && isKept(kind) {
		s.touched[recordKey{kind, key}] = true
		s.put(kind, key, value)
		return nil
	}
	if err := s.mayWrite(); err != nil {
		return err
	}
	i, ok := s.find(kind, key)
	if !s.dirty && (!ok && value == nil || ok && value != nil && bytes.Equal(s.records[i].value, value)) {
		return nil
	}
	s.put(kind, key, value)
	return s.commit()
}

// put changes a record, or removes it when value is nil, and writes nothing.
// mu is held.
func (s *State) put(kind byte, key string, value []byte) {
	switch i, ok := s.find(kind, key); {
	case ok && value == nil:
		s.records = slices.Delete(s.records, i, i+1)
	case ok:
		s.records[i].value = value
	case value != nil:
		s.records = slices.Insert(s.records, i, record{kind, key, value})
	}
}

// write writes both copies, one after the other.
func (s *State) write() error {
	s.dirty = true
	s.generation++
	b, err := appendCopy(nil, s.generation, s.records)
	if err != nil {
		return err
	}
	for _, name := range copies() {
		if err := s.overwrite(name, b); err != nil {
			return err
		}
	}
	s.dirty, s.pending = false, false
	clear(s.received)
	return nil
}

// overwrite writes a copy in place, which keeps its room and costs one sync.
func (s *State) overwrite(name string, b []byte) (err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s.replace(name, b)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

// replace writes a copy beside and renames it, so that a copy that is new or
// was damaged is never there in part.
func (s *State) replace(name string, b []byte) error {
	path := filepath.Join(s.dir, name)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// copyFile is what was found under a copy's name.
type copyFile struct {
	there, whole bool
	generation   uint64
	records      []record
	octets       []byte // of a whole copy
}

// readCopy reads a copy. An error is a reason to touch nothing.
func readCopy(path string, flag int) (c copyFile, err error) {
	f, err := os.OpenFile(path, flag, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer func() { _ = f.Close() }()
	c.there = true
	b, err := io.ReadAll(io.LimitReader(f, header+maxRecords))
	if err != nil {
		return c, nil // a sector that does not read is a damaged copy
	}
	if len(b) < header || string(b[:4]) != magic {
		return c, nil
	}
	length := binary.LittleEndian.Uint32(b[16:])
	if uint64(length) > uint64(len(b)-header) { // compared wide: an int may have 32 bits
		return c, nil
	}
	n := int(length)
	if binary.LittleEndian.Uint32(b[20:]) != sum(b[:header+n]) {
		return c, nil
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v > version {
		return c, &FormatError{Path: path, Found: v, Known: version}
	}
	c.octets = b[:header+n]
	c.generation = binary.LittleEndian.Uint64(b[8:])
	c.records, c.whole = parseRecords(c.octets[header:])
	return c, nil
}

func sum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, b[:20]), table, b[header:])
}

func appendCopy(b []byte, generation uint64, records []record) ([]byte, error) {
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, generation)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, r := range records {
		b = append(b, r.kind)
		b = binary.AppendUvarint(b, uint64(len(r.key)))
		b = append(b, r.key...)
		b = binary.AppendUvarint(b, uint64(len(r.value)))
		b = append(b, r.value...)
	}
	if len(b)-header > maxRecords {
		return nil, fmt.Errorf("%d octets of records, at most %d", len(b)-header, maxRecords)
	}
	binary.LittleEndian.PutUint32(b[16:], uint32(len(b)-header))
	binary.LittleEndian.PutUint32(b[20:], sum(b))
	return b, nil
}

// parseRecords reads records; they alias nothing of b.
func parseRecords(b []byte) (records []record, ok bool) {
	field := func() ([]byte, bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, false
		}
		f := b[size : size+int(n)]
		b = b[size+int(n):]
		return f, true
	}
	for len(b) > 0 {
		r := record{kind: b[0]}
		b = b[1:]
		key, ok := field()
		if !ok {
			return nil, false
		}
		value, ok := field()
		if !ok {
			return nil, false
		}
		r.key, r.value = string(key), append([]byte{}, value...)
		if len(records) > 0 && compareRecords(records[len(records)-1], r) >= 0 {
			return nil, false
		}
		records = append(records, r)
	}
	return records, true
}
