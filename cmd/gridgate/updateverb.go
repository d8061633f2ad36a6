package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/agent/update"
	"gridgate/internal/cli"
)

func updateVerb() cli.Verb {
	return cli.Verb{
		Name:    "update",
		Summary: "show the firmware and its slots, bring new firmware, give up what is on trial, or start the factory's",
		Args:    "status | apply FILE | back | factory",
		Example: []string{
			"gridgate update status",
			"gridgate update apply -objects /mnt/usb/objects /mnt/usb/firmware.doc   # signed by the role firmware",
			"gridgate update factory -yes   # what the gateway was flashed or installed with",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			path := fs.String("config", defaultConfig, "the configuration `FILE`")
			socket := fs.String("control", "", "the control `SOCKET` (default: that of -config)")
			asJSON := fs.Bool("json", false, "print what the fog is told, as JSON")
			objects := fs.String("objects", "", "apply: a `DIR` with the objects of the firmware, which the agent can read; what is not there comes from the fog")
			yes := fs.Bool("yes", false, "factory: do it")
			return func(ctx context.Context, env cli.Env, args []string) error {
				u := updating{env: env, json: *asJSON}
				want := 1
				if len(args) > 0 && args[0] == "apply" {
					want = 2
				}
				if len(args) != want {
					return cli.Usagef("update: want status, apply FILE, back or factory")
				}
				var err error
				if u.socket, err = controlSocket(*socket, *path); err != nil {
					return err
				}
				switch args[0] {
				case "status":
					return u.do(ctx, "status", nil, "")
				case "apply":
					return u.apply(ctx, args[1], *objects)
				case "back":
					return u.do(ctx, "back", nil, "")
				case "factory":
					if !*yes {
						return cli.Usagef("update factory: the gateway starts anew with what it was flashed or installed with; say -yes if that is what you want")
					}
					return u.do(ctx, "factory", nil, "")
				}
				return cli.Usagef("update: %q: want status, apply FILE, back or factory", args[0])
			}
		},
	}
}

type updating struct {
	env    cli.Env
	socket string
	json   bool
}

// apply gives a signed manifest to the agent.
func (u updating) apply(ctx context.Context, path, objects string) error {
	document, err := readLimited(path, 1<<20)
	if err != nil {
		return fmt.Errorf("update apply: %w", err)
	}
	if _, err := order.Read(document); err != nil {
		return fmt.Errorf("update apply: %s: %w", path, err)
	}
	if objects != "" {
		if objects, err = filepath.Abs(objects); err != nil {
			return fmt.Errorf("update apply: %w", err)
		}
		if _, err := os.ReadDir(objects); err != nil {
			return fmt.Errorf("update apply: -objects: %w", err)
		}
	}
	return u.do(ctx, "apply", document, objects)
}

// do asks the agent, and prints how its firmware is then.
func (u updating) do(ctx context.Context, what string, document []byte, objects string) error {
	raw, err := status.Update(ctx, u.socket, what, document, objects)
	if errors.Is(err, status.ErrNoAgent) {
		return noAgent(err)
	}
	if err != nil {
		return fmt.Errorf("update %s: %w", what, err)
	}
	var r update.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("update %s: %w", what, err)
	}
	if what == "factory" || what == "back" {
		fmt.Fprintln(u.env.Stderr, "it starts anew; see gridgate update status in a moment")
	}
	if u.json {
		fmt.Fprintf(u.env.Stdout, "%s\n", raw)
		return nil
	}
	printFirmware(u.env.Stdout, r)
	return nil
}

func printFirmware(w io.Writer, r update.Report) {
	if r.Slot == "" {
		fmt.Fprintf(w, "gridgate %s, without slots: it cannot be updated\n", r.Agent)
	} else {
		fmt.Fprintf(w, "gridgate %s, board %s, slot %s", r.Agent, r.Board, r.Slot)
		switch {
		case r.Firmware != "":
			fmt.Fprintf(w, ": firmware %s", r.Firmware)
		case r.Slot == "f":
			fmt.Fprint(w, ": the factory's")
		}
		fmt.Fprintln(w)
	}
	if d := r.Document; d != nil {
		fmt.Fprintf(w, "update: %s version %d: firmware %s: %s", d.Target, d.Version, d.Firmware, d.Step)
		if d.Need > 0 {
			fmt.Fprintf(w, ", %d of %d octets", d.Have, d.Need)
		}
		if d.Waits != "" {
			fmt.Fprintf(w, ", waits: %s", d.Waits)
		}
		fmt.Fprintln(w)
	}
	if l := r.Last; l != nil {
		name := l.Hash
		if l.Target != "" {
			name = fmt.Sprintf("%s version %d", l.Target, l.Version)
		}
		if l.Firmware != "" {
			name += ": firmware " + l.Firmware
		}
		fmt.Fprintf(w, "last: %s: %s", name, l.Outcome)
		if l.Reason != "" {
			fmt.Fprintf(w, ": %s", l.Reason)
		}
		fmt.Fprintln(w)
	}
}

// printSlots shows in the status what firmware runs.
func printSlots(w io.Writer, f *status.Firmware) {
	if f == nil {
		return
	}
	text := "slot " + f.Slot
	switch {
	case f.Error != "":
		text = f.Error
	case f.OnTrial != "":
		text += ", slot " + f.OnTrial + " is on trial"
	}
	if f.Version != "" {
		text += ": firmware " + f.Version
	}
	fmt.Fprintf(w, "firmware\t%s\n", text)
	if f.Update != "" {
		fmt.Fprintf(w, "update\t%s\n", f.Update)
	}
	if f.Last != "" {
		fmt.Fprintf(w, "last update\t%s\n", f.Last)
	}
}
