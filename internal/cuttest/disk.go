// Package cuttest makes power cuts: a file system in memory, mounted by FUSE,
// that logs what is written and what is synced, and the states that a disk may
// be in when the power goes at some moment of that log.
//
// The file system is served by the test's process. What uses it must run in
// another: a page fault of this process that this process has to serve may
// never end.
package cuttest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// kind is what an event does.
type kind uint8

const (
	write    kind = iota // data at off of a node
	truncate             // a node to off
	fsync                // of a node
	create               // name is a node from now on
	rename               // name is called to
	unlink               // name is gone
	fsyncDir             // the names in dir are on the disk
	mkdir                // name is a directory
	symlink              // name leads to data from now on
)

type event struct {
	kind     kind
	node     uint64
	off      int64
	data     []byte
	dir      string // that name is in: empty, or its path and a slash
	name, to string // whole paths
}

// Disk is a mounted file system.
type Disk struct {
	dir string

	mu    sync.Mutex
	nodes uint64
	log   []event
}

// Mount mounts an empty file system until the test ends. It fails the test
// where FUSE does not work.
func Mount(t testing.TB) *Disk {
	t.Helper()
	d := &Disk{dir: t.TempDir()}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatalf("no FUSE here, which power-cut tests need: load the kernel module fuse, or give the container /dev/fuse: %v", err)
	}
	root := &directory{disk: d}
	server, err := fs.Mount(d.dir, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMount: true, FsName: "cuttest", Name: "cuttest", MaxWrite: 1 << 20,
	}})
	if err != nil {
		t.Fatalf("mount by FUSE: install fuse3 (scripts/setup.sh), and run as root or with fusermount3: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount %s: %v", d.dir, err)
		}
	})
	return d
}

// Dir is where the file system is mounted.
func (d *Disk) Dir() string { return d.dir }

// Path is the path of a file.
func (d *Disk) Path(name string) string { return filepath.Join(d.dir, name) }

// Log gives what has happened until now.
func (d *Disk) Log() *Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Log{events: slices.Clone(d.log)}
}

func (d *Disk) note(e event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, e)
}

// directory is the root, or one below it.
type directory struct {
	fs.Inode

	disk *Disk
	path string // empty, or with a slash at its end
}

var (
	_ fs.NodeCreater   = (*directory)(nil)
	_ fs.NodeMkdirer   = (*directory)(nil)
	_ fs.NodeRenamer   = (*directory)(nil)
	_ fs.NodeSymlinker = (*directory)(nil)
	_ fs.NodeUnlinker  = (*directory)(nil)
	_ fs.NodeFsyncer   = (*directory)(nil)
	_ fs.NodeStatfser  = (*directory)(nil)
)

func (d *directory) Create(ctx context.Context, name string, _, mode uint32, _ *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	d.disk.mu.Lock()
	d.disk.nodes++
	f := &file{disk: d.disk, id: d.disk.nodes}
	d.disk.mu.Unlock()
	d.disk.note(event{kind: create, node: f.id, dir: d.path, name: d.path + name})
	return d.NewInode(ctx, f, fs.StableAttr{Mode: fuse.S_IFREG | mode&0o777}), nil, 0, 0
}

func (d *directory) Mkdir(ctx context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	d.disk.note(event{kind: mkdir, dir: d.path, name: d.path + name})
	below := &directory{disk: d.disk, path: d.path + name + "/"}
	return d.NewInode(ctx, below, fs.StableAttr{Mode: fuse.S_IFDIR | 0o755}), 0
}

// Symlink makes a link that is there whole or not at all, as file systems do that
// keep where it leads with its name.
func (d *directory) Symlink(ctx context.Context, target, name string, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	d.disk.mu.Lock()
	d.disk.nodes++
	id := d.disk.nodes
	d.disk.mu.Unlock()
	d.disk.note(event{kind: symlink, node: id, data: []byte(target), dir: d.path, name: d.path + name})
	return d.NewInode(ctx, &fs.MemSymlink{Data: []byte(target)}, fs.StableAttr{Mode: fuse.S_IFLNK}), 0
}

// Rename moves within the directory.
func (d *directory) Rename(_ context.Context, name string, into fs.InodeEmbedder, to string, flags uint32) syscall.Errno {
	if flags != 0 || into.EmbeddedInode() != d.EmbeddedInode() {
		return syscall.EINVAL
	}
	d.disk.note(event{kind: rename, dir: d.path, name: d.path + name, to: d.path + to})
	return 0
}

func (d *directory) Unlink(_ context.Context, name string) syscall.Errno {
	d.disk.note(event{kind: unlink, dir: d.path, name: d.path + name})
	return 0
}

func (d *directory) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.disk.note(event{kind: fsyncDir, dir: d.path})
	return 0
}

func (d *directory) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.Blocks, out.Bfree, out.Bavail, out.NameLen = 4096, 4096, 1<<20, 1<<20, 1<<20, 255
	return 0
}

// file is a file.
type file struct {
	fs.Inode

	disk *Disk
	id   uint64

	mu   sync.Mutex
	data []byte
}

var (
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeSetattrer = (*file)(nil)
)

func (f *file) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.resize(0)
		f.disk.note(event{kind: truncate, node: f.id})
	}
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= int64(len(f.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, f.data[off:])]), 0
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if end := off + int64(len(data)); end > int64(len(f.data)) {
		f.resize(end)
	}
	copy(f.data[off:], data)
	f.disk.note(event{kind: write, node: f.id, off: off, data: slices.Clone(data)})
	return uint32(len(data)), 0
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.disk.note(event{kind: fsync, node: f.id})
	return 0
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attr(out)
	return 0
}

func (f *file) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		f.resize(int64(size))
		f.disk.note(event{kind: truncate, node: f.id, off: int64(size)})
	}
	f.attr(out)
	return 0
}

func (f *file) attr(out *fuse.AttrOut) {
	out.Mode, out.Nlink, out.Size = fuse.S_IFREG|0o600, 1, uint64(len(f.data))
	out.Blocks = (out.Size + 511) / 512
}

func (f *file) resize(size int64) { f.data = resize(f.data, size) }

// resize cuts data, or fills it up with zeros.
func resize(data []byte, size int64) []byte {
	if n := int64(len(data)); size <= n {
		clear(data[size:])
		return data[:size]
	}
	if int64(cap(data)) >= size {
		return data[:size]
	}
	grown := make([]byte, size, size+size/4)
	copy(grown, data)
	return grown
}
