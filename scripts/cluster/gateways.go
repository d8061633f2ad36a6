package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// progress is what the process of the gateways prints, a line each time.
type progress struct {
	counts
	Quarter int  // how many quarter hours all gateways have stored
	Memory  int  // anonymous resident memory now, in bytes
	Peak    int  // the most so far
	Done    bool // all is acknowledged
}

// serveGateways runs all gateways in one process: options come as JSON on
// standard input, then numbers of quarter hours to be read; progress goes to
// standard output, and the end of standard input ends it.
func serveGateways(ctx context.Context, in io.Reader, out, errs io.Writer) error {
	var o gatewayOptions
	dec := json.NewDecoder(in)
	if err := dec.Decode(&o); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	log := slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := make([]*gateway, o.Fleet.Gateways)
	for i := range all {
		var err error
		if all[i], err = openGateway(&o, i, log); err != nil {
			return err
		}
	}
	more, end := make(chan int, o.Fleet.Quarters), make(chan struct{})
	go func() { // ends with the process: nothing interrupts a read from standard input
		defer close(end)
		for n := 0; dec.Decode(&n) == nil; {
			more <- n
		}
	}()
	tasks, ctx := errgroup.WithContext(ctx)
	for _, g := range all {
		tasks.Go(func() error { return g.run(ctx) })
	}
	s := &server{o: &o, all: all, out: json.NewEncoder(out)}
	tasks.Go(func() error { return s.read(ctx, more) })
	tasks.Go(func() error {
		defer cancel()
		return s.report(ctx, end)
	})
	if err := tasks.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// server is the process of the gateways.
type server struct {
	o   *gatewayOptions
	all []*gateway
	out *json.Encoder

	mu      sync.Mutex
	quarter int
}

// read has all gateways read their meters, one quarter hour after the other, as
// fast as they can store it, as many as more says.
func (s *server) read(ctx context.Context, more <-chan int) error {
	allowed := 0
	for q := range s.o.Fleet.Quarters {
		for q >= allowed {
			select {
			case n := <-more:
				allowed += n
			case <-ctx.Done():
				return nil
			}
		}
		work, wctx := errgroup.WithContext(ctx)
		work.SetLimit(4 * runtime.NumCPU())
		for _, g := range s.all {
			work.Go(func() error { return g.read(wctx, s.o.Fleet, q) })
		}
		if err := work.Wait(); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was ended
			}
			return err
		}
		s.mu.Lock()
		s.quarter = q + 1
		s.mu.Unlock()
	}
	return nil
}

// report prints progress until end is closed or ctx ends.
func (s *server) report(ctx context.Context, end <-chan struct{}) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	peak := 0
	for {
		p, err := s.progress()
		if err != nil {
			return err
		}
		peak = max(peak, p.Memory)
		p.Peak = peak
		if err := s.out.Encode(p); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-end:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *server) progress() (p progress, err error) {
	s.mu.Lock()
	p.Quarter = s.quarter
	s.mu.Unlock()
	for _, g := range s.all {
		g.count(&p.counts)
	}
	p.Done = p.Quarter == s.o.Fleet.Quarters && p.Acked == p.Last && p.Last >= uint64(s.o.Fleet.rows())
	p.Memory, err = anonymous(os.Getpid())
	return p, err
}

// anonymous gives the anonymous resident memory of a process, in bytes: mapped
// files are the kernel's to take back.
func anonymous(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no RssAnon of process %d", pid)
}

// groupMemory is anonymous of all processes of a group.
func groupMemory(group int) (sum int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// After the name, which may have anything in it: state, parent, group.
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(fields) < 3 || fields[2] != strconv.Itoa(group) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return 0, err
		}
		if n, err := anonymous(pid); err == nil {
			sum += n
		}
	}
	return sum, err
}
