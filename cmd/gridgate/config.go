package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"

	"gridgate/configs"
)

// Where things are on a gateway.
const (
	defaultConfig  = "/etc/gridgate/gridgate.yaml"
	defaultControl = "/run/gridgate/control.sock"
)

// loadConfig reads a configuration and says what to do when there is none.
func loadConfig(path string) (*configs.Config, error) {
	cfg, err := configs.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; name the file with -config", err)
	}
	return cfg, err
}

// loadOn reads a configuration; references to secrets that are not in the store are
// problems.
func loadOn(path string, store configs.Store) (*configs.Config, error) {
	l, err := configs.Read(path)
	if err != nil {
		return nil, err
	}
	return configs.ParseOn(path, l.Data, store)
}

// socketOf adds the flag -config to a verb that has -control and wants no more of a
// configuration than its socket.
func socketOf(fs *flag.FlagSet, control *string) {
	fs.Func("config", "borrow from the agent with this configuration `FILE`", func(path string) (err error) {
		*control, err = controlSocket("", path)
		return err
	})
}

// controlSocket gives the socket that a flag or a configuration names; without
// either, where an agent would have it.
func controlSocket(flagged, config string) (string, error) {
	if flagged != "" {
		return flagged, nil
	}
	cfg, err := loadConfig(config)
	if errors.Is(err, fs.ErrNotExist) && config == defaultConfig {
		return defaultControl, nil
	}
	if err != nil {
		return "", err
	}
	return cfg.Control.Socket, nil
}
