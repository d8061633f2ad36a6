package main

import (
	"bytes"
	"os"
	"sync"
	"syscall"
)

// lockedText is a bytes.Buffer for several goroutines.
type lockedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// owner gives the user that a file belongs to.
func owner(info os.FileInfo) uint32 {
	s, _ := info.Sys().(*syscall.Stat_t)
	return s.Uid
}
