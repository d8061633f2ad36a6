package audit

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
)

// After gives entries after a number, the oldest first and most at once. What
// was given up long since is left out.
func (l *Log) After(number uint64, most int) (all []Entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number >= l.last {
		return nil, nil
	}
	names, err := files(l.dir)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	next := fileName(number + 1)
	for i, name := range names {
		if i+1 < len(names) && names[i+1] <= next {
			continue // all of it is older
		}
		if all, err = entries(filepath.Join(l.dir, name), number, most, all); err != nil || len(all) >= most {
			break
		}
	}
	return all, err
}

// entries appends those of a file that come after a number.
func entries(path string, number uint64, most int, all []Entry) ([]Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return all, fmt.Errorf("audit: %w", err)
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 4096), lineMost)
	for line := 1; len(all) < most && s.Scan(); line++ {
		e, why := parse(s.Bytes())
		if why != "" {
			return all, fmt.Errorf("audit: %w", &Problem{path, line, why})
		}
		if e.Number > number {
			all = append(all, e)
		}
	}
	if err := s.Err(); err != nil {
		return all, fmt.Errorf("audit: %w", err)
	}
	return all, nil
}
