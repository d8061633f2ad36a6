package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gridgate/internal/sys"
)

// Aside names a log that did not fit and was moved aside, and where it ends.
type Aside struct {
	Log  string `json:"log"`            // what the names of its files begin with
	Last uint64 `json:"last"`           // its last entry that is good, 0 where none is
	Hash string `json:"hash,omitempty"` // of that entry
}

// Moved is a log that was moved aside, as it lies there now.
type Moved struct {
	Aside
	Entries int // that are good
	// Why is what is wrong with its own chain; nil: nothing, but for its end.
	Why error
	// Named is the number of the entry that names it, 0 where none does: that
	// was given up long since, or a cut came before it.
	Named uint64
	// Changed says that it is not any more what that entry says of it.
	Changed bool
}

// aside is what the names of logs begin with that were moved aside: broken-0001-
// and so on.
const aside = "broken-"

// setAside keeps what does not fit under other names, and begins anew. The
// newest file goes first: after a cut the rest does not fit either.
func (l *Log) setAside() error {
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			return err
		}
		l.file = nil
	}
	names, err := files(l.dir)
	if err != nil {
		return err
	}
	log, err := l.freeName(names)
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(names) {
		if err := os.Rename(filepath.Join(l.dir, name), filepath.Join(l.dir, log+name)); err != nil {
			return err
		}
	}
	return sys.SyncDir(l.dir)
}

// freeName gives a log's name: the last one, when a cut came amid moving to it.
func (l *Log) freeName(names []string) (string, error) {
	logs, err := logsAside(l.dir)
	if err != nil || len(logs) == 0 {
		return asideName(1), err
	}
	last := logs[len(logs)-1]
	taken, err := filesOf(l.dir, last)
	// What a cut left is older than all that was moved.
	if err == nil && len(names) > 0 && names[len(names)-1] < strings.TrimPrefix(taken[0], last) {
		return last, nil
	}
	return asideName(asideNumber(last) + 1), err
}

func asideName(n int) string { return fmt.Sprintf("%s%04d-", aside, n) }

func asideNumber(log string) int {
	n, _ := strconv.Atoi(strings.Trim(strings.TrimPrefix(log, aside), "-"))
	return n
}

// logsAside gives the names of the logs that were moved aside, the oldest first.
func logsAside(dir string) (logs []string, err error) {
	paths, err := SetAside(dir)
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		name := filepath.Base(p)
		if at := strings.Index(name, "-audit-"); at > 0 {
			logs = append(logs, name[:at+1])
		}
	}
	slices.Sort(logs)
	return slices.Compact(logs), nil
}

// SetAside gives the names of files that did not fit when the log was opened.
func SetAside(dir string) ([]string, error) { return filepath.Glob(filepath.Join(dir, aside+"*")) }

// newest says of the log that was moved aside last where it ends; nil: none is
// there.
func newest(dir string) (*Aside, error) {
	logs, err := logsAside(dir)
	if err != nil || len(logs) == 0 {
		return nil, err
	}
	m := look(dir, logs[len(logs)-1], nil)
	return &m.Aside, nil
}

// look checks a log that was moved aside on its own, as far as it goes.
func look(dir, log string, each func(Entry)) Moved {
	m := Moved{Aside: Aside{Log: log}}
	var last Entry
	last, m.Why = verify(dir, log, func(e Entry) {
		m.Entries++
		if each != nil {
			each(e)
		}
	})
	m.Last, m.Hash = last.Number, last.Hash
	return m
}

// VerifyAside checks each log that was moved aside, the oldest first, and
// whether it is still what the log after it says of it.
func VerifyAside(dir string) (all []Moved, err error) {
	logs, err := logsAside(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Problem{File: dir, Text: err.Error()}
	}
	named := map[string]Entry{}
	note := func(e Entry) {
		if e.Aside != nil {
			named[e.Aside.Log] = e
		}
	}
	for _, log := range logs {
		all = append(all, look(dir, log, note))
	}
	if _, err := Verify(dir, note); err != nil {
		return all, err
	}
	for i := range all {
		m := &all[i]
		if e, ok := named[m.Log]; ok {
			m.Named, m.Changed = e.Number, *e.Aside != m.Aside
		}
	}
	return all, nil
}
