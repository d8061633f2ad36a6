// Package audit keeps the log of what was done to a gateway and by whose order:
// append-only, each entry with the hash of the one before it.
//
// The log is a directory of files named audit-N.log, N the number of their first
// entry with ten digits; a line an entry:
//
//	{"n":17,"time":"2026-11-22T10:00:00Z","clock":"trusted","what":"config.kept","by":"config×1","detail":"site-1/gw-1 version 7","prev":"<64 hex digits>"} <64 hex digits>
//
// The last word is the SHA-256 of what stands before the space; prev is that of
// the entry before, zeros in the first one. The number and hash of the last
// entry are kept in another place (Head): who cuts the log off is found out. Such
// a log is moved aside, and the first entry after it says so (Aside).
package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gridgate/internal/sys"
)

// Entry is one thing that was done.
type Entry struct {
	Number uint64    `json:"n"` // from 1 on
	Time   time.Time `json:"time"`
	Clock  string    `json:"clock"`            // what the clock was worth: "trusted" or "untrusted"
	What   string    `json:"what"`             // such as config.kept
	By     string    `json:"by,omitempty"`     // roles that signed, with how many keys and which, such as config×1 E7620F1842B4E81F, or "local"
	Detail string    `json:"detail,omitempty"` // for people; never a secret
	Aside  *Aside    `json:"aside,omitempty"`  // a log that was moved aside before this entry
	Prev   string    `json:"prev"`             // hash of the entry before, in hexadecimal digits

	Hash string `json:"-"`
}

// Head keeps the end of the chain apart from the log. Its numbers only rise.
type Head interface {
	AuditHead() (number uint64, hash [32]byte, ok bool)
	SetAuditHead(number uint64, hash [32]byte) error
}

const (
	fileMost  = 256 << 10 // octets, after which another file begins
	filesKeep = 16
	lineMost  = 16 << 10
	textMost  = 4 << 10 // of a detail
	hashSize  = 2 * sha256.Size
)

// JSON gives the entry as it stands in the log, with its hash: what the fog gets.
func (e Entry) JSON() []byte {
	type plain Entry
	b, err := json.Marshal(struct {
		plain
		Hash string `json:"hash"`
	}{plain(e), e.Hash})
	if err != nil {
		return nil // strings, a number and a time: cannot be
	}
	return b
}

// Problem is what is wrong with a log, and where.
type Problem struct {
	File string
	Line int // 0: the file as a whole
	Text string
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Log is a log that is open. Its methods may be called at once.
type Log struct {
	mu   sync.Mutex
	dir  string
	head Head
	file *os.File
	size int64
	last uint64
	hash [32]byte
	// aside is what the first entry has to name, nil: nothing.
	aside *Aside
	// err is why nothing can be added any more.
	err error
}

// Open opens the log in a directory, which is made when it is not there. What a
// power cut left of the last entry is taken away. A log that does not fit its
// head is set aside, and broken says what was found: the caller adds an entry
// that says so.
func Open(dir string, head Head) (l *Log, broken, err error) {
	if err := sys.MakeDir(dir, 0o750); err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	l = &Log{dir: dir, head: head}
	if err := l.tail(); err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	number, hash, ok := head.AuditHead()
	switch end, found := Verify(dir, nil); {
	case found != nil:
		broken = found
	case !ok && end.Number == 0, ok && end.Number == number && end.sum() == hash:
	case ok && end.Number == number+1 && end.Prev == hex.EncodeToString(hash[:]), !ok && end.Number == 1:
		// The entry is there and its number was cut off: it counts.
		if err := head.SetAuditHead(end.Number, end.sum()); err != nil {
			return nil, nil, fmt.Errorf("audit: %w", err)
		}
	default:
		broken = &Problem{File: dir, Text: fmt.Sprintf("it ends with entry %d, and the last one was %d: it was cut off or exchanged", end.Number, number)}
	}
	l.last, l.hash, _ = head.AuditHead()
	if broken != nil {
		if err := l.setAside(); err != nil {
			return nil, broken, fmt.Errorf("audit: %w", err)
		}
	}
	if l.file == nil {
		if l.aside, err = newest(dir); err != nil {
			return nil, broken, errors.Join(fmt.Errorf("audit: %w", err), l.Close())
		}
	}
	return l, broken, nil
}

// sum gives an entry's hash.
func (e Entry) sum() (h [32]byte) {
	_, _ = hex.Decode(h[:], []byte(e.Hash)) // zeros where there is none
	return h
}

// tail opens the newest file for writing and takes a torn entry off its end, as
// far as the head tells that it was never acknowledged.
func (l *Log) tail() error {
	names, err := files(l.dir)
	if err != nil || len(names) == 0 {
		return err
	}
	f, err := os.OpenFile(filepath.Join(l.dir, names[len(names)-1]), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, 2*fileMost))
	if err == nil {
		number, hash, _ := l.head.AuditHead()
		l.size = int64(settled(data, names[len(names)-1], number, hash))
		err = f.Truncate(l.size)
	}
	if err == nil {
		_, err = f.Seek(l.size, io.SeekStart)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file = f
	return nil
}

// settled gives how much of the newest file counts: all lines that are ended, but
// for one behind the head that a cut tore. Its end may be there and its middle not.
func settled(data []byte, name string, number uint64, hash [32]byte) int {
	lines, prev := bytes.LastIndexByte(data, '\n')+1, hex.EncodeToString(hash[:])
	at, found := 0, name == fileName(number+1) // the head is in the file before
	for line := range bytes.Lines(data[:lines]) {
		if found {
			break
		}
		at += len(line)
		e, why := parse(bytes.TrimSuffix(line, []byte("\n")))
		found = why == "" && e.Number == number && e.Hash == prev
	}
	if !found {
		return lines
	}
	for line := range bytes.Lines(data[at:lines]) {
		if _, why := parse(bytes.TrimSuffix(line, []byte("\n"))); why == "" {
			return lines // it is whole, or there are more than the head knows: see Open
		}
	}
	return at
}

func fileName(first uint64) string { return fmt.Sprintf("audit-%010d.log", first) }

// begin begins another file.
func (l *Log) begin() error {
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			return err
		}
		l.file = nil
	}
	f, err := os.OpenFile(filepath.Join(l.dir, fileName(l.last+1)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	l.file, l.size = f, 0
	names, err := files(l.dir)
	if err != nil {
		return err
	}
	for _, old := range names[:max(0, len(names)-filesKeep)] {
		if err := os.Remove(filepath.Join(l.dir, old)); err != nil {
			return err
		}
	}
	return sys.SyncDir(l.dir)
}

// Add adds an entry; its number, prev and hash are given to it. It is durable
// on return.
func (l *Log) Add(e Entry) (Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return Entry{}, fmt.Errorf("audit: an entry before was not written: %w", l.err)
	}
	if l.file == nil || l.size >= fileMost {
		if err := l.begin(); err != nil {
			return Entry{}, fmt.Errorf("audit: %w", err)
		}
	}
	if len(e.Detail) > textMost {
		e.Detail = strings.ToValidUTF8(e.Detail[:textMost], "") + "…"
	}
	e.Aside = l.aside
	e.Number, e.Prev, e.Time = l.last+1, hex.EncodeToString(l.hash[:]), e.Time.UTC().Round(0)
	line, err := json.Marshal(e)
	for err == nil && len(line) > lineMost-hashSize-2 && e.Detail != "" { // JSON writes some octets as six
		e.Detail = strings.ToValidUTF8(e.Detail[:len(e.Detail)/2], "") + "…"
		line, err = json.Marshal(e)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("audit: %w", err)
	}
	sum := sha256.Sum256(line)
	e.Hash = hex.EncodeToString(sum[:])
	line = append(append(append(line, ' '), e.Hash...), '\n')
	if _, err := l.file.Write(line); err != nil {
		return Entry{}, l.undo(err)
	}
	if err := l.file.Sync(); err != nil {
		return Entry{}, l.undo(err)
	}
	if err := l.head.SetAuditHead(e.Number, sum); err != nil {
		return Entry{}, l.undo(err)
	}
	l.size += int64(len(line))
	l.last, l.hash, l.aside = e.Number, sum, nil
	return e, nil
}

// undo takes what was written of an entry away again, so that the next one can
// be tried: a full disk has room again some day.
func (l *Log) undo(why error) error {
	end, err := l.file.Seek(0, io.SeekEnd)
	if err == nil && end > l.size {
		err = l.file.Truncate(l.size)
	}
	if err == nil {
		_, err = l.file.Seek(l.size, io.SeekStart)
	}
	if err != nil {
		l.err = errors.Join(why, err)
	}
	return fmt.Errorf("audit: %w", why)
}

// Close closes the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	l.err = fs.ErrClosed
	return l.file.Close()
}

func files(dir string) ([]string, error) { return filesOf(dir, "") }

// filesOf gives the names of the files of a log, the oldest first; those of a
// log that was moved aside begin with its name.
func filesOf(dir, log string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range all {
		if strings.HasPrefix(f.Name(), log+"audit-") && strings.HasSuffix(f.Name(), ".log") {
			names = append(names, f.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Verify checks the chain of the log in a directory and gives its last entry;
// each is called with every entry that is good, when it is not nil. The error is
// a *Problem: the first that was found. That the end is missing only the head
// can tell.
func Verify(dir string, each func(Entry)) (last Entry, err error) { return verify(dir, "", each) }

// verify checks a log by the name that those of its files begin with.
func verify(dir, log string, each func(Entry)) (last Entry, err error) {
	names, err := filesOf(dir, log)
	if errors.Is(err, fs.ErrNotExist) {
		return last, nil
	}
	if err != nil {
		return last, &Problem{File: dir, Text: err.Error()}
	}
	for i, name := range names {
		if last, err = verifyFile(filepath.Join(dir, name), strings.TrimPrefix(name, log), last, i == 0, each); err != nil {
			return last, err
		}
	}
	return last, nil
}

// verifyFile checks a file; name is what it was called when it was written.
func verifyFile(path, name string, before Entry, first bool, each func(Entry)) (last Entry, err error) {
	f, err := os.Open(path)
	if err != nil {
		return before, &Problem{File: path, Text: err.Error()}
	}
	defer func() { _ = f.Close() }()
	last = before
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 4096), lineMost)
	line := 0
	for s.Scan() {
		line++
		e, why := parse(s.Bytes())
		switch {
		case why != "":
		case first && line == 1: // what was before may be given up long since
			if fileName(e.Number) != name {
				why = fmt.Sprintf("entry %d stands first: entries before it are missing", e.Number)
			}
		case e.Number != last.Number+1:
			why = fmt.Sprintf("entry %d follows entry %d", e.Number, last.Number)
		case e.Prev != last.Hash:
			why = fmt.Sprintf("entry %d does not follow from the one before it: one of them was changed", e.Number)
		}
		if why == "" && e.Number == 1 && strings.Trim(e.Prev, "0") != "" {
			why = "the first entry has one before it"
		}
		if why != "" {
			return last, &Problem{path, line, why}
		}
		if last = e; each != nil {
			each(e)
		}
	}
	if err := s.Err(); err != nil {
		return last, &Problem{path, line + 1, err.Error()}
	}
	return last, nil
}

// parse reads a line; why says what is wrong with it.
func parse(line []byte) (e Entry, why string) {
	at := len(line) - hashSize - 1
	if at < 0 || line[at] != ' ' {
		return e, "not an entry"
	}
	sum := sha256.Sum256(line[:at])
	if e.Hash = hex.EncodeToString(sum[:]); e.Hash != string(line[at+1:]) {
		return e, "the entry was changed: its hash is another"
	}
	hash := e.Hash
	d := json.NewDecoder(bytes.NewReader(line[:at]))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return e, "not an entry: " + err.Error()
	}
	e.Hash = hash
	return e, ""
}
