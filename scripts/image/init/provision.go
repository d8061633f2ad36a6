package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// provisioning takes over what somebody put on the boot partition, at the first
// start only: what came later by signed orders counts for more.
type provisioning struct {
	from     string // the folder on the boot partition
	to       string // where gridgate has its configuration
	fallback string // the configuration without meters
	// gridgate runs the slot's program and gives what it printed.
	gridgate func(args ...string) (string, error)
	// write does something while the boot partition may be written; nil: what was
	// taken over does not survive a restart, and nothing is removed.
	write func(do func() error) error
}

const (
	configName = "gridgate.yaml"
	signedName = "configuration" // a folder that the utility signed has it
)

// run leaves a configuration, whatever happens.
func (p *provisioning) run() {
	for _, path := range []string{p.to, p.config()} { // the user may have put anything there
		if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() && !(path == p.to && st.IsDir()) {
			log.Printf("%s is no plain file and is removed", path)
			if err := os.RemoveAll(path); err != nil {
				log.Print(err)
			}
		}
	}
	if err := os.MkdirAll(p.to, 0o750); err != nil {
		log.Print(err)
	}
	if !p.done() {
		switch err := p.take(); {
		case errors.Is(err, fs.ErrNotExist):
			log.Print("there is no provision/gridgate.yaml on the boot partition: starting without meters")
		case err != nil:
			log.Printf("PROVISIONING HAS NOT WORKED, starting without meters: %v", err)
		default:
			log.Print("provision/ was taken over from the boot partition")
		}
		if !p.done() {
			if err := take(p.fallback, p.config()); err != nil {
				log.Print(err)
			}
			return
		}
	}
	if err := p.forget(); err != nil {
		log.Printf("secrets stay in provision/ on the boot partition: %v", err)
	}
}

func (p *provisioning) config() string { return filepath.Join(p.to, configName) }

// done says whether there is a configuration that somebody wrote.
func (p *provisioning) done() bool {
	b, err := os.ReadFile(p.config())
	if err != nil {
		return false
	}
	none, err := os.ReadFile(p.fallback)
	return err != nil || !bytes.Equal(b, none)
}

// take takes the folder over, if there is one.
func (p *provisioning) take() error {
	entries, err := os.ReadDir(p.from)
	if err != nil {
		return err
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name && e.Type().IsRegular() })
	}
	switch {
	case has(signedName):
		// The configuration without meters is nobody's work, and not in the way.
		if err := os.Remove(p.config()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_, err := p.gridgate("provision", "from", p.from)
		return err
	case !has(configName):
		return fs.ErrNotExist
	}
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != configName {
			if err := take(filepath.Join(p.from, e.Name()), filepath.Join(p.to, e.Name())); err != nil {
				return err
			}
		}
	}
	// The configuration last: with it all are there. One that gridgate cannot run
	// with would stop it from running at all.
	if _, err := p.gridgate("check", "-config", filepath.Join(p.from, configName)); err != nil {
		return err
	}
	return take(filepath.Join(p.from, configName), p.config())
}

// forget removes the secrets that were taken over from the boot partition, which
// every computer reads. The configuration and certificates stay: a gateway that
// loses its data reads on with them.
func (p *provisioning) forget() error {
	var secrets []string
	entries, _ := os.ReadDir(p.from) // none is as good as an empty one
	for _, e := range entries {
		theirs, err := os.ReadFile(filepath.Join(p.from, e.Name()))
		if err != nil || isPublic(e.Name(), theirs) {
			continue
		}
		if ours, err := os.ReadFile(filepath.Join(p.to, e.Name())); err == nil && bytes.Equal(ours, theirs) {
			secrets = append(secrets, filepath.Join(p.from, e.Name()))
		}
	}
	if p.write == nil || len(secrets) == 0 {
		return nil
	}
	return p.write(func() error {
		var errs []error
		for _, path := range secrets {
			errs = append(errs, erase(path))
		}
		return errors.Join(errs...)
	})
}

// isPublic says whether a file may stay where everybody reads it.
func isPublic(name string, content []byte) bool {
	switch {
	case name == configName, name == signedName, name == "trust":
		return true // secrets never stand in them, or sealed
	case filepath.Ext(name) == ".pem", filepath.Ext(name) == ".crt":
		return bytes.Contains(content, []byte("-----BEGIN CERTIFICATE-----")) && !bytes.Contains(content, []byte("PRIVATE KEY"))
	}
	return false
}

// erase removes a file and what was in it.
func erase(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	stat, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, stat.Size()))
	}
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}

// take copies a file, whole or not at all.
func take(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	// The folder belongs to gridgate's user: no link of his is followed.
	if err := os.Remove(to + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(to+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(to+".new", to); err != nil {
		return err
	}
	unix.Sync()
	return nil
}

// runGridgate runs a verb of the slot's program.
func (d *disk) runGridgate(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.slotDir, "gridgate"), args...) //nolint:gosec // the slot's
	cmd.Dir, cmd.Env = "/data/gridgate", gridgateEnv()
	asGridgate(cmd)
	give("/data/gridgate")
	out, err := cmd.CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil {
		err = fmt.Errorf("gridgate %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return string(out), err
}

func gridgateEnv() []string { return []string{"PATH=/sbin", "HOME=/data/gridgate"} }
