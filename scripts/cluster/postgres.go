package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// startPostgres starts a server of its own with the settings of configs/fog, and
// gives the URL of an empty database. PostgreSQL refuses to run as root; then
// it runs as the user that Debian's package made.
func startPostgres(ctx context.Context, s *stage, configs string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return "", errors.New("PostgreSQL is not installed (scripts/setup.sh)")
	}
	slices.Sort(found)
	bin := found[len(found)-1]
	dir, err := s.folder("postgres")
	if err != nil {
		return "", err
	}
	as, err := postgresUser(dir)
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	if _, err := output(ctx, as, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return "", err
	}
	ports, err := s.freePorts(1)
	if err != nil {
		return "", err
	}
	own := fmt.Sprintf("\ninclude '%s'\nlisten_addresses = '127.0.0.1'\nport = %d\nunix_socket_directories = '%s'\n",
		filepath.Join(dir, "gridgate.conf"), ports[0], dir)
	if err := errors.Join(
		copyWith(filepath.Join(configs, "postgresql", "gridgate.conf"), filepath.Join(dir, "gridgate.conf")),
		appendTo(filepath.Join(data, "postgresql.conf"), own),
	); err != nil {
		return "", err
	}
	p, err := s.start("postgresql", as, filepath.Join(bin, "postgres"), "-D", data)
	if err != nil {
		return "", err
	}
	p.last = syscall.SIGQUIT // its children end with it
	url := func(database string) string {
		return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", ports[0], database)
	}
	err = p.until(ctx, "it answers", func() bool {
		c, err := pgx.Connect(ctx, url("postgres"))
		if err != nil {
			return false
		}
		_, err = c.Exec(ctx, "CREATE DATABASE readings")
		return errors.Join(err, c.Close(ctx)) == nil
	})
	return url("readings"), err
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// postgresUser gives the folder to the user that the server runs as, and what
// makes a command run as that user.
func postgresUser(dir string) (func(*exec.Cmd), error) {
	here := func(c *exec.Cmd) { c.Dir = dir; c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC") }
	if os.Getuid() != 0 {
		return here, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uerr, gerr, os.Chown(dir, int(uid), int(gid))); err != nil {
		return nil, err
	}
	return func(c *exec.Cmd) {
		here(c)
		if c.SysProcAttr == nil {
			c.SysProcAttr = &syscall.SysProcAttr{}
		}
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}, nil
}
