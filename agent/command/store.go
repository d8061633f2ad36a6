package command

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// The files of a command, see the package comment.
const (
	docFile    = ".doc"
	logFile    = ".log"
	resultFile = ".result"
	dataFile   = ".data"
)

// store keeps the files.
type store struct{ dir string }

func (s store) path(id, kind string) string { return filepath.Join(s.dir, id+kind) }

// put writes a file that is there whole or not at all, durably.
func (s store) put(id, kind string, data []byte) error {
	path := s.path(id, kind)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	return sys.SyncDir(s.dir)
}

func (s store) get(id, kind string) ([]byte, error) { return os.ReadFile(s.path(id, kind)) }

func (s store) has(id, kind string) bool {
	_, err := os.Stat(s.path(id, kind))
	return err == nil
}

// drop takes files away. A cut may leave them: they are taken away then.
func (s store) drop(id string, kinds ...string) {
	for _, k := range kinds {
		_ = os.Remove(s.path(id, k))
	}
}

// list gives the ids that have a file of a kind, the oldest first, and takes away
// what a cut left in the making.
func (s store) list(kind string) (ids []string, err error) {
	all, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if strings.HasSuffix(f.Name(), ".new") {
			_ = os.Remove(filepath.Join(s.dir, f.Name()))
			continue
		}
		id, is := strings.CutSuffix(f.Name(), kind)
		if _, err := meter.ParseID(id); !is || err != nil {
			continue
		}
		made := int64(0)
		if info, err := f.Info(); err == nil {
			made = max(info.ModTime().UnixNano(), 0)
		}
		ids = append(ids, fmt.Sprintf("%019d%s", made, id))
	}
	slices.Sort(ids)
	for i := range ids {
		ids[i] = ids[i][19:]
	}
	return ids, nil
}

// mark is a line of a command's log.
type mark struct {
	Meter   meter.ID        `json:"meter,omitempty"`
	Begun   bool            `json:"begun,omitempty"`
	Note    json.RawMessage `json:"note,omitempty"`
	Outcome *told           `json:"outcome,omitempty"`
}

// turn is what a log says of one meter.
type turn struct {
	begun   bool
	note    json.RawMessage
	outcome *told
}

// journal is a command's log. Its methods may be called at once. The zero value
// keeps nothing: of a command that is repeated after a cut nothing is needed.
type journal struct {
	mu    sync.Mutex
	file  *os.File
	end   int64 // of what is whole
	turns map[meter.ID]turn
}

// journal opens a command's log and reads what is there. What a cut tore off its
// end is taken away.
func (s store) journal(id string) (*journal, error) {
	path := s.path(id, logFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	isNew := err != nil
	j := &journal{turns: map[meter.ID]turn{}}
	whole := j.parse(data)
	if j.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	j.end = int64(whole)
	err = j.file.Truncate(j.end)
	if err == nil && isNew {
		err = sys.SyncDir(s.dir)
	}
	if err != nil {
		return nil, errors.Join(err, j.file.Close())
	}
	return j, nil
}

// parse reads marks and gives how many octets of them are whole.
func (j *journal) parse(data []byte) (whole int) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for lines.Scan() {
		var m mark
		end := whole + len(lines.Bytes()) + 1
		if end > len(data) || json.Unmarshal(lines.Bytes(), &m) != nil {
			return whole
		}
		whole = end
		j.take(m)
	}
	return whole
}

func (j *journal) take(m mark) {
	t := j.turns[m.Meter]
	t.begun = true
	if m.Note != nil {
		t.note = m.Note
	}
	if m.Outcome != nil {
		t.outcome = m.Outcome
	}
	j.turns[m.Meter] = t
}

// add adds a mark, durably.
func (j *journal) add(m mark) error {
	if j == nil {
		return nil
	}
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	line = append(line, '\n')
	if _, err = j.file.WriteAt(line, j.end); err == nil {
		err = j.file.Sync()
	}
	if err != nil { // a full disk takes a part of a line: the next is written over it
		return fmt.Errorf("the log of the command: %w", errors.Join(err, j.file.Truncate(j.end)))
	}
	j.end += int64(len(line))
	j.take(m)
	return nil
}

// with gives targets, and the meters besides whose turn had begun: their
// configuration is gone, what came of them is not.
func (j *journal) with(targets []Meter) []Meter {
	for _, id := range slices.Sorted(maps.Keys(j.turns)) {
		if !slices.ContainsFunc(targets, func(m Meter) bool { return m.ID == id }) {
			targets = append(targets, Meter{ID: id})
		}
	}
	return targets
}

func (j *journal) of(id meter.ID) turn {
	if j == nil {
		return turn{}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.turns[id]
}

func (j *journal) close() {
	if j != nil {
		_ = j.file.Close() // all was synced
	}
}
