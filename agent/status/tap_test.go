package status

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
)

// tapped serves a control socket whose line "l" has what pieces gives; it ends when
// that is closed.
func tapped(t *testing.T, pieces <-chan Passed) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c.sock")
	c, err := Listen(Config{Path: path, Log: slog.New(slog.DiscardHandler), Tap: func(ctx context.Context, line string, each func(Passed) error) error {
		if line != "l" {
			return ErrUnused
		}
		if err := each(Passed{}); err != nil {
			return err
		}
		for {
			select {
			case <-ctx.Done():
				return nil
			case p, open := <-pieces:
				if !open {
					return nil
				}
				if err := each(p); err != nil {
					return err
				}
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestTapGivesWhatPasses(t *testing.T) {
	t.Parallel()
	pieces := make(chan Passed)
	path := tapped(t, pieces)
	want := []Passed{{At: 1700000000123456, Sent: true, Settings: "9600 8N1", Data: []byte{0, 255}}, {At: 2, Data: []byte("x"), Lost: 3}}
	var got []Passed
	begun := false
	err := Tap(t.Context(), path, "l", func(p Passed) error {
		if !begun {
			begun = true
			if p.Data != nil {
				t.Errorf("first %+v", p)
			}
			go func() { // ends with the last piece
				for _, p := range want {
					pieces <- p
				}
				close(pieces)
			}()
			return nil
		}
		got = append(got, p)
		return nil
	})
	if !errors.Is(err, io.EOF) || len(got) != len(want) {
		t.Fatalf("%v, %+v", err, got)
	}
	for i := range want {
		if got[i].At != want[i].At || got[i].Sent != want[i].Sent || got[i].Settings != want[i].Settings || got[i].Lost != want[i].Lost || string(got[i].Data) != string(want[i].Data) {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

func TestTapEndsWithItsListener(t *testing.T) {
	t.Parallel()
	path := tapped(t, nil)
	enough := errors.New("enough")
	if err := Tap(t.Context(), path, "l", func(Passed) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := Tap(ctx, path, "l", func(Passed) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTapSaysWhyNot(t *testing.T) {
	t.Parallel()
	never := func(Passed) error { return errors.New("called") }
	path := tapped(t, nil)
	if err := Tap(t.Context(), path, "other", never); !errors.Is(err, ErrUnused) {
		t.Error(err)
	}
	if err := Tap(t.Context(), filepath.Join(t.TempDir(), "none"), "l", never); !errors.Is(err, ErrNoAgent) {
		t.Error(err)
	}
	none, _ := serve(t)
	if err := Tap(t.Context(), none, "l", never); err == nil || errors.Is(err, ErrUnused) {
		t.Error(err)
	}
}
