package cuttest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// Log is what happened to a Disk. A moment of it is a number of events.
type Log struct{ events []event }

// Len is the moment after the last event.
func (l *Log) Len() int { return len(l.events) }

// Lines gives the whole lines that had been appended to the file called name by
// a moment: what the process under test reported as done.
func (l *Log) Lines(name string, at int) []string {
	var text bytes.Buffer
	nodes := map[uint64]bool{}
	for _, e := range l.events[:at] {
		switch {
		case e.kind == create && e.name == name:
			nodes[e.node] = true
		case e.kind == write && nodes[e.node]:
			text.Write(e.data)
		}
	}
	lines := strings.Split(text.String(), "\n")
	return lines[:len(lines)-1]
}

// Find gives the first moment from a moment on at which the file called name
// has a line, -1 when it never has.
func (l *Log) Find(name, line string, from int) int {
	for at := from; at <= len(l.events); at++ {
		for _, have := range l.Lines(name, at) {
			if have == line {
				return at
			}
		}
	}
	return -1
}

// Cut lays into dir what may be on the disk when the power goes at a moment:
// what was synced, and of what was not a random part, torn into sectors. Of
// names that were not synced a random number of the changes is there, in their
// order, directory by directory. With noSync the disk takes no notice of syncs.
func (l *Log) Cut(at int, random *rand.Rand, noSync bool, dir string) error {
	names, dirs := map[string]uint64{}, map[string]bool{"": true}
	links := map[uint64]string{}
	synced := map[string]int{}
	last := map[uint64]int{} // the node's last sync
	for i, e := range l.events[:at] {
		switch {
		case noSync:
		case e.kind == fsync:
			last[e.node] = i
		case e.kind == fsyncDir:
			synced[e.dir] = i
		}
	}
	keep := []float64{0, 1, 0.5, random.Float64()}[random.IntN(4)]
	missing := map[string]bool{} // directories of which a change of names is not there: none after it is
	data := map[uint64][]byte{}
	for i, e := range l.events[:at] {
		sync, ok := last[e.node]
		kept := ok && i < sync
		switch e.kind {
		case fsync, fsyncDir:
		case write:
			data[e.node] = writeTorn(data[e.node], &e, kept, keep, random)
		case truncate:
			if kept || random.Float64() < keep {
				data[e.node] = resize(data[e.node], e.off)
			}
		case create, rename, unlink, mkdir, symlink:
			there := !missing[e.dir] && (i < synced[e.dir] || random.Float64() < max(keep, 0.5))
			if missing[e.dir] = !there; !there {
				continue
			}
			switch e.kind {
			case mkdir:
				dirs[e.name+"/"] = true
				continue
			case symlink:
				links[e.node] = string(e.data)
			default:
			}
			changeName(names, &e)
		}
	}
	return lay(dir, names, dirs, links, data)
}

// lay writes what there is into dir.
func lay(dir string, names map[string]uint64, dirs map[string]bool, links map[uint64]string, data map[uint64][]byte) (err error) {
	for name := range dirs {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return fmt.Errorf("lay crash state: %w", err)
		}
	}
	for name, node := range names {
		if !dirs[name[:strings.LastIndexByte(name, '/')+1]] {
			continue
		}
		if target, ok := links[node]; ok {
			err = os.Symlink(target, filepath.Join(dir, name))
		} else {
			err = os.WriteFile(filepath.Join(dir, name), data[node], 0o600)
		}
		if err != nil {
			return fmt.Errorf("lay crash state: %w", err)
		}
	}
	return nil
}

func changeName(names map[string]uint64, e *event) {
	switch node := names[e.name]; e.kind {
	case create, symlink:
		names[e.name] = e.node
	case rename:
		delete(names, e.name)
		names[e.to] = node
	case unlink:
		delete(names, e.name)
	case write, truncate, fsync, fsyncDir, mkdir:
	}
}

// writeTorn writes an event's data, all of it when it was kept, else each
// sector with the probability keep.
func writeTorn(data []byte, e *event, kept bool, keep float64, random *rand.Rand) []byte {
	for at := e.off; at < e.off+int64(len(e.data)); {
		end := min((at/sector+1)*sector, e.off+int64(len(e.data)))
		if kept || random.Float64() < keep {
			if end > int64(len(data)) {
				data = resize(data, end)
			}
			copy(data[at:end], e.data[at-e.off:end-e.off])
		}
		at = end
	}
	return data
}
