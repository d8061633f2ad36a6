package update

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// How long init may take.
const (
	askTime     = 20 * time.Second
	installTime = 20 * time.Minute // two slots' worth of slow flash, written and read again
	maxReply    = 16 << 10         // octets
)

// ImageSlots are the slots of an image's card: its first process writes them.
// It is asked over a Unix socket, one JSON object a line each way.
type ImageSlots struct{ socket string }

// NewImageSlots gives the slots of who listens at a socket.
func NewImageSlots(socket string) *ImageSlots { return &ImageSlots{socket: socket} }

var _ Slots = (*ImageSlots)(nil)

type initRequest struct {
	Do    string     `json:"do"`
	Files []initFile `json:"files,omitempty"`
}

type initFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Path   string `json:"path"`
}

type initReply struct {
	OK      bool           `json:"ok"`
	Error   string         `json:"error"`
	Board   string         `json:"board"`
	Running string         `json:"running"`
	First   string         `json:"first"`
	Trial   string         `json:"trial"`
	Tries   map[string]int `json:"tries"`
	Dir     string         `json:"dir"`
}

// ask asks for one thing. watch, which may be nil, gets the connection.
func (s *ImageSlots) ask(limit time.Duration, request initRequest, watch func(net.Conn)) (reply initReply, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("init: %s: %w", request.Do, err)
		}
	}()
	by := time.Now().Add(limit)
	conn, err := net.DialTimeout("unix", s.socket, limit)
	if err != nil {
		return reply, err
	}
	defer func() { _ = conn.Close() }()
	if watch != nil {
		watch(conn)
	}
	if err := conn.SetDeadline(by); err != nil {
		return reply, err
	}
	line, err := json.Marshal(request)
	if err != nil {
		return reply, err
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return reply, err
	}
	line, err = bufio.NewReader(io.LimitReader(conn, maxReply)).ReadBytes('\n')
	switch {
	case errors.Is(err, io.EOF):
		return reply, fmt.Errorf("it hung up, or says more than %d octets: %w", maxReply, io.ErrUnexpectedEOF)
	case err != nil:
		return reply, err
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return reply, fmt.Errorf("its answer: %w", err)
	}
	switch {
	case reply.Error != "":
		return reply, fmt.Errorf("it refuses: %s", reply.Error)
	case !reply.OK:
		return reply, errors.New("it says neither ok nor what is wrong")
	}
	return reply, nil
}

// short asks for what takes no time, and nobody waits for longer.
func (s *ImageSlots) short(do string) (initReply, error) {
	return s.ask(askTime, initRequest{Do: do}, nil)
}

// State asks init.
func (s *ImageSlots) State() (SlotState, error) {
	r, err := s.short("state")
	if err != nil {
		return SlotState{}, err
	}
	isSlot := func(name string, or string) bool { return name == "a" || name == "b" || name == or }
	if !isSlot(r.Running, "f") || !isSlot(r.First, "f") || !isSlot(r.Trial, "") || !isName(r.Board, maxText) {
		return SlotState{}, fmt.Errorf("init: state: it says board %q, running %q, first %q, trial %q", clip(r.Board), clip(r.Running), clip(r.First), clip(r.Trial))
	}
	return SlotState{Board: r.Board, Running: r.Running, First: r.First, OnTrial: r.Trial, Tries: r.Tries[r.Trial]}, nil
}

// Open opens a file where init has the slot that runs mounted.
func (s *ImageSlots) Open(name string) (io.ReadCloser, error) {
	r, err := s.short("state")
	if err != nil {
		return nil, err
	}
	if !isName(name, 32) || !filepath.IsAbs(r.Dir) {
		return nil, fmt.Errorf("slot: no file %q in %q", clip(name), clip(r.Dir))
	}
	return os.Open(filepath.Join(r.Dir, name))
}

// Install has init write the files, read them again and compare. When ctx ends
// before it is done, init goes on for itself, and the slot that it writes is
// none that would be started.
func (s *ImageSlots) Install(ctx context.Context, files []Staged) error {
	request := initRequest{Do: "install"}
	for _, f := range files {
		path, err := filepath.Abs(f.Path)
		if err != nil {
			return fmt.Errorf("init: install: %w", err)
		}
		request.Files = append(request.Files, initFile{Name: f.Name, Size: f.Size, SHA256: hex.EncodeToString(f.SHA256[:]), Path: path})
	}
	stop := func() bool { return true }
	_, err := s.ask(installTime, request, func(conn net.Conn) {
		stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	})
	if stop(); err != nil && ctx.Err() != nil {
		return fmt.Errorf("init: install: %w", ctx.Err())
	}
	return err
}

// Switch, Confirm, Back, Factory and Restart are what init does by those names.
func (s *ImageSlots) Switch() error { return s.do("switch") }

// Confirm makes the slot that runs the first.
func (s *ImageSlots) Confirm() error { return s.do("confirm") }

// Back ends a trial.
func (s *ImageSlots) Back() error { return s.do("back") }

// Factory has the next start take the factory's slot.
func (s *ImageSlots) Factory() error { return s.do("factory") }

// Restart has init stop the agent and restart the machine.
func (s *ImageSlots) Restart() error { return s.do("restart") }

func (s *ImageSlots) do(what string) error {
	_, err := s.short(what)
	return err
}
