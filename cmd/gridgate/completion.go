package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"gridgate/internal/cli"
)

// shellValues says what bash offers for the values of flags.
func shellValues() map[string]string {
	return map[string]string{
		"FILE": cli.Files, "DIR": cli.Dirs, "SOCKET": cli.Files,
		"LANE":            "alarm billing interval instant",
		"ID":              "$(gridgate completion meters -words \"${words[*]}\" 2>/dev/null)",
		"METER":           "$(gridgate completion meters -words \"${words[*]}\" 2>/dev/null)",
		"ZONE":            "UTC local",
		"scan -protocol":  "modbus dlms iec21",
		"sniff -protocol": "modbus modbus-tcp hdlc wrapper iec21",
		"sniff -file":     "pcap hex raw",
		"scan -units":     "1-32 1-247",
	}
}

func completionVerb() cli.Verb {
	return cli.Verb{
		Name: "completion", Summary: "print what has bash complete verbs, flags and names", Args: "bash|meters",
		Example: []string{
			"gridgate completion bash > /usr/share/bash-completion/completions/gridgate",
			"source <(gridgate completion bash)",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			words := fs.String("words", "", "meters: the command `LINE` so far, whose -config names the configuration")
			return func(_ context.Context, env cli.Env, args []string) error {
				switch {
				case len(args) == 1 && args[0] == "bash":
					return program().Bash(env.Stdout, shellValues())
				case len(args) == 1 && args[0] == "meters":
					return meterNames(env, *words)
				}
				return cli.Usagef("completion: want bash or meters")
			}
		},
	}
}

// meterNames prints the ids of the meters of the configuration that a command line
// names, or of the gateway's own.
func meterNames(env cli.Env, line string) error {
	cfg, err := loadConfig(configIn(line))
	if err != nil {
		return err
	}
	for _, m := range cfg.Meters {
		fmt.Fprintln(env.Stdout, m.ID)
	}
	return nil
}

// configIn gives the configuration that a command line names.
func configIn(line string) string {
	words := strings.Fields(line)
	for i, w := range words {
		name := strings.TrimPrefix(strings.TrimPrefix(w, "-"), "-")
		if name == w {
			continue
		}
		if file, ok := strings.CutPrefix(name, "config="); ok {
			return file
		}
		if name == "config" && i+1 < len(words) {
			return words[i+1]
		}
	}
	return defaultConfig
}
