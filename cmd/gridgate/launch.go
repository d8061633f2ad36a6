package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"gridgate/agent/update"
)

// launch puts the program of a slot in the place of this one, where this is the
// packaged program under a service manager and there is one to start. The program of
// a slot launches nothing: there is no way round in a circle.
func launch(ctx context.Context, log *slog.Logger) {
	dir, launched := os.Getenv(update.EnvSlots), os.Getenv(update.EnvSlot) != ""
	if dir == "" || launched {
		return
	}
	self, err := os.Executable()
	if err != nil {
		log.Error("the packaged program runs: where it lies is not to be known", "error", err)
		return
	}
	l := &update.Launcher{
		Dir: dir, Self: self, Env: os.Environ(), Log: log,
		Exec: func(path string, env []string) error { return syscall.Exec(path, os.Args, env) },
	}
	l.Launch(ctx)
}

// again puts a new process in the place of this one, with the same number: of the
// program that is at this one's path now; or, where this one was launched, of the
// launcher, which looks anew what is to run.
func again() error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start anew: %w", err)
	}
	if launcher := os.Getenv(update.EnvLauncher); launcher != "" {
		// It fails where the package was removed meanwhile: what runs goes on then.
		_ = syscall.Exec(launcher, os.Args, update.Unlaunched(os.Environ()))
	}
	return fmt.Errorf("start anew: %s: %w", path, syscall.Exec(path, os.Args, os.Environ()))
}
