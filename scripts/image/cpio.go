package main

import (
	"bytes"
	"fmt"
	"os"
)

// archive is an initramfs: a cpio archive in the format that the kernel reads,
// "newc", with nothing in it that differs from one build to the next.
type archive struct {
	bytes.Buffer
	inode int
}

const (
	modeFolder = 0o40755
	modeDevice = 0o20600
	modeFile   = 0o100644
	modeRun    = 0o100755
)

func (a *archive) entry(name string, mode, major, minor int, data []byte) {
	a.inode++
	links := 1
	fmt.Fprintf(a, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	a.align()
	a.Write(data)
	a.align()
}

func (a *archive) align() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

func (a *archive) folders(names ...string) {
	for _, n := range names {
		a.entry(n, modeFolder, 0, 0, nil)
	}
}

func (a *archive) file(name string, mode int, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	a.entry(name, mode, 0, 0, data)
	return nil
}

func (a *archive) end() { a.entry("TRAILER!!!", 0, 0, 0, nil) }
