package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

// rig is a gateway in QEMU in which imagetest runs instead of gridgate, so that a
// test can ask the first process itself.
type rig struct {
	t    *testing.T
	m    machine
	card string
	port int // of this machine, to imagetest's
	// drive is what QEMU is told of the card; nil: a plain one
	drive []string
	q     *proctest.Process
}

// programs are compiled once for all tests.
var programs sync.Map

func program(t *testing.T, m machine, from string, flags ...string) string {
	t.Helper()
	key := fmt.Sprint(m.board, from, flags)
	make, _ := programs.LoadOrStore(key, sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "gridgate-image-test-")
		if err != nil {
			return "", err
		}
		out := filepath.Join(dir, "program")
		return out, compile(m, from, out, flags...)
	}))
	path, err := make.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// faultyInit gives a first process that is made for tests: with short limits, and
// with a fault or none.
func faultyInit(t *testing.T, m machine, fault string) string {
	t.Helper()
	return program(t, m, "./init", "-tags", "faulty", "-ldflags", "-s -w -X main.fault="+fault)
}

// newRig makes a card whose slots run imagetest.
func newRig(t *testing.T, m machine) *rig {
	t.Helper()
	r := &rig{t: t, m: m, card: filepath.Join(t.TempDir(), "card"), port: proctest.FreePorts(t, 1)}
	r.tool("cp", "--sparse=always", image(t, m), r.card)
	probe := program(t, m, "./imagetest")
	r.tool("mcopy", "-o", "-i", r.at("a"), probe, "::gridgate")
	r.tool("mcopy", "-o", "-i", r.at("boot"), probe, "::factory/gridgate")
	return r
}

// at names a partition of the card for mtools.
func (r *rig) at(part string) string { return partitionOf(r.card, part) }

func partitionOf(card, part string) string {
	at := map[string]int{"boot": gap, "a": gap + bootSize, "b": gap + bootSize + slotSize, "data": gap + bootSize + 2*slotSize}[part]
	return fmt.Sprintf("%s@@%dM", card, at)
}

func (r *rig) tool(name string, args ...string) {
	r.t.Helper()
	if err := run(name, args...); err != nil {
		r.t.Fatal(err)
	}
}

// withInit puts another first process into the initrd of a slot: of two archives
// one behind the other the kernel takes the later file.
func (r *rig) withInit(slot, init string) {
	r.t.Helper()
	dir := r.t.TempDir()
	initrd := filepath.Join(dir, "initrd.zst")
	r.tool("mcopy", "-n", "-i", r.at(slot), "::initrd.zst", initrd)
	appendInit(r.t, initrd, init)
	r.tool("mcopy", "-o", "-i", r.at(slot), initrd, "::initrd.zst")
}

func appendInit(t *testing.T, initrd, init string) {
	t.Helper()
	a := &archive{}
	if err := a.file("init", modeRun, init); err != nil {
		t.Fatal(err)
	}
	a.end()
	cpio := filepath.Join(t.TempDir(), "more")
	if err := os.WriteFile(cpio, a.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run("sh", "-c", "zstd -q -3 --no-check -c "+cpio+" >>"+initrd); err != nil {
		t.Fatal(err)
	}
}

// boot switches the gateway on and waits until imagetest answers.
func (r *rig) boot(more ...string) self {
	r.t.Helper()
	r.start(more...)
	return r.await("")
}

func (r *rig) start(more ...string) {
	r.t.Helper()
	q := r.m.qemu
	drive := r.drive
	if drive == nil {
		drive = []string{"-drive", "file=" + r.card + ",format=raw,if=none,id=d", "-device", "virtio-blk-device,drive=d"}
	}
	args := append(q[1:], "-m", "256", "-smp", "2", "-nographic", "-monitor", "none", "-serial", "stdio",
		"-device", "virtio-net-device,netdev=n", "-netdev", fmt.Sprintf("user,id=n,hostfwd=tcp:127.0.0.1:%d-:7777", r.port))
	r.q = proctest.Start(r.t, nil, q[0], append(append(args, drive...), more...)...)
}

// self is what imagetest says of where it runs.
type self struct {
	Boot, Fault, Slot, Board, Init string
	User                           int
}

// await waits until imagetest answers in another boot than the one named.
func (r *rig) await(boot string) self {
	r.t.Helper()
	var s self
	within(r.t, 10*time.Minute, "imagetest answers", func() bool {
		if r.q.Ended() {
			r.t.Fatalf("QEMU has ended:\n%s", r.q.Output())
		}
		text, err := r.do(5*time.Second, "GET", "/self", nil)
		return err == nil && json.Unmarshal(text, &s) == nil && s.Boot != boot
	})
	return s
}

// do speaks with imagetest.
func (r *rig) do(limit time.Duration, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d%s", r.port, path), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return text, err
}

// answer is what the first process says.
type answer struct {
	OK    bool
	Error string
	Board string

	Running, First, Trial, Dir string
	Tries                      map[string]int
}

// tryAsk asks the first process; it gives an error when the machine is gone.
func (r *rig) tryAsk(request string) (answer, error) {
	text, err := r.do(10*time.Minute, "POST", "/init", []byte(request+"\n"))
	var a answer
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	return a, err
}

func (r *rig) ask(request string) answer {
	r.t.Helper()
	a, err := r.tryAsk(request)
	if err != nil {
		r.t.Fatalf("%.200s: %v", request, err)
	}
	return a
}

// must asks for what has to be done.
func (r *rig) must(request string) {
	r.t.Helper()
	if a := r.ask(request); !a.OK {
		r.t.Fatalf("%.200s: %+v", request, a)
	}
}

// refused asks for what must not be done.
func (r *rig) refused(request, want string) {
	r.t.Helper()
	if a := r.ask(request); a.OK || !strings.Contains(a.Error, want) {
		r.t.Errorf("%.200s: want %q: %+v", request, want, a)
	}
}

// state compares what the first process says of the slots.
func (r *rig) state(want answer) {
	r.t.Helper()
	got := r.ask(`{"do":"state"}`)
	want.OK, want.Board = true, r.m.board
	if want.Dir == "" {
		want.Dir = "/slot"
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("state\n%+v; want\n%+v", got, want)
	}
}

// file is one of a slot, as the request has it.
type file struct {
	Name   string `json:"name"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
	Path   string `json:"path"`
}

func fileOf(name, path string, content []byte) file {
	return file{Name: name, Size: len(content), SHA256: fmt.Sprintf("%x", sha256.Sum256(content)), Path: path}
}

func install(files ...file) string {
	text, err := json.Marshal(map[string]any{"do": "install", "files": files})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// put brings a file to the gateway.
func (r *rig) put(path string, content []byte) error {
	_, err := r.do(10*time.Minute, "PUT", "/file?path="+url.QueryEscape(path), content)
	return err
}

// get reads a file of the gateway.
func (r *rig) get(path string) []byte {
	r.t.Helper()
	text, err := r.do(10*time.Minute, "GET", "/file?path="+url.QueryEscape(path), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// faulty gives imagetest as it is after a word.
func (r *rig) faulty(word string) []byte {
	r.t.Helper()
	text, err := os.ReadFile(program(r.t, r.m, "./imagetest"))
	if err != nil {
		r.t.Fatal(err)
	}
	return append(text, "\nimagetest: "+word...)
}

// staged brings a program to the gateway and gives the files of a slot with it:
// the rest is as in the slot that runs.
func (r *rig) staged(program []byte) []file {
	r.t.Helper()
	if err := r.put("/data/gridgate/staged/gridgate", program); err != nil {
		r.t.Fatal(err)
	}
	dir := r.ask(`{"do":"state"}`).Dir
	files := []file{fileOf("gridgate", "/data/gridgate/staged/gridgate", program)}
	for _, name := range []string{"vmlinuz", "initrd.zst"} {
		files = append(files, fileOf(name, dir+"/"+name, r.get(dir+"/"+name)))
	}
	return files
}

// withStaged is staged with another first process in the initrd.
func (r *rig) withStaged(program []byte, init string) []file {
	r.t.Helper()
	files := r.staged(program)
	path := filepath.Join(r.t.TempDir(), "initrd.zst")
	if err := os.WriteFile(path, r.get(files[2].Path), 0o600); err != nil {
		r.t.Fatal(err)
	}
	appendInit(r.t, path, init)
	text, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	files[2] = fileOf("initrd.zst", "/data/gridgate/staged/initrd.zst", text)
	if err := r.put(files[2].Path, text); err != nil {
		r.t.Fatal(err)
	}
	return files
}

// update installs a program and lets it be tried.
func (r *rig) update(program []byte) {
	r.t.Helper()
	r.try(r.staged(program))
}

// try installs files and lets them be tried.
func (r *rig) try(files []file) {
	r.t.Helper()
	r.must(install(files...))
	r.must(`{"do":"switch"}`)
	r.must(`{"do":"restart"}`)
}
