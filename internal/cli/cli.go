// Package cli is what the project's commands share: verbs, flags that may
// follow positionals, help with an example, and exit codes (0 done, 1 failed,
// 2 usage).
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// Env is what a verb may touch of the process.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// Verb is one verb of a program.
type Verb struct {
	Name    string
	Summary string   // one line, lower case, no full stop
	Args    string   // the positionals as usage shows them: "URL [OBIS…]"
	Example []string // whole command lines
	// Setup declares the verb's flags and gives the function that does the
	// work with the positionals.
	Setup func(fs *flag.FlagSet) func(ctx context.Context, env Env, args []string) error
}

// Program is a command of verbs.
type Program struct {
	Name    string
	Summary string
	Verbs   []Verb
}

// CodeError is an error with an exit code of its own, above 2: the verb says what
// it means.
type CodeError struct {
	Code int
	Text string
}

func (e *CodeError) Error() string { return e.Text }

// UsageError says that a command line is wrong: exit code 2.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

// Usagef gives a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{Text: fmt.Sprintf(format, args...)}
}

// Main runs p with the process's arguments and ends the process with the exit
// code. SIGINT and SIGTERM cancel the context.
func (p Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	env := Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}
	code := p.Run(ctx, env, os.Args[1:])
	stop()
	os.Exit(code)
}

// Run runs p and gives the exit code. Errors go to env.Stderr, each line of them
// behind the program's name.
func (p Program) Run(ctx context.Context, env Env, args []string) int {
	err := p.run(ctx, env, args)
	if err == nil {
		return 0
	}
	fmt.Fprintf(env.Stderr, "%s: %s\n", p.Name, strings.ReplaceAll(err.Error(), "\n", "\n"+p.Name+": "))
	var usage *UsageError
	if errors.As(err, &usage) {
		return 2
	}
	var coded *CodeError
	if errors.As(err, &coded) {
		return coded.Code
	}
	return 1
}

func (p Program) run(ctx context.Context, env Env, args []string) error {
	if len(args) == 0 {
		p.usage(env.Stderr)
		return Usagef("no verb given")
	}
	name := args[0]
	if name == "help" && len(args) > 1 {
		name, args = args[1], []string{args[1], "-h"}
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, name) {
		p.usage(env.Stdout)
		return nil
	}
	at := slices.IndexFunc(p.Verbs, func(v Verb) bool { return v.Name == name })
	if at < 0 {
		return Usagef("unknown verb %q; `%s help` lists them", name, p.Name)
	}
	verb := p.Verbs[at]
	fs := flag.NewFlagSet(verb.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	do := verb.Setup(fs)
	positionals, err := parse(fs, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		p.verbUsage(env.Stdout, verb, fs)
		return nil
	}
	if err != nil {
		return Usagef("%s: %v; `%s %s -h` shows the flags", verb.Name, err, p.Name, verb.Name)
	}
	return do(ctx, env, positionals)
}

// parse parses flags wherever they stand; everything after "--" is positional.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var positionals []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return positionals, nil
		}
		if at := len(args) - len(rest); at > 0 && args[at-1] == "--" {
			return append(positionals, rest...), nil
		}
		positionals, args = append(positionals, rest[0]), rest[1:]
	}
}

func (p Program) usage(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n\nusage: %s VERB [flags] [arguments]\n\n", p.Name, p.Summary, p.Name)
	for _, v := range p.Verbs {
		fmt.Fprintf(w, "  %-10s %s\n", v.Name, v.Summary)
	}
	fmt.Fprintf(w, "\n`%s VERB -h` shows a verb's flags and an example.\n", p.Name)
}

func (p Program) verbUsage(w io.Writer, v Verb, fs *flag.FlagSet) {
	fmt.Fprintf(w, "%s %s: %s\n\nusage: %s %s\n", p.Name, v.Name, v.Summary, p.Name,
		strings.Join(slices.DeleteFunc([]string{v.Name, "[flags]", v.Args}, func(s string) bool { return s == "" }), " "))
	any := false
	fs.VisitAll(func(*flag.Flag) { any = true })
	if any {
		fmt.Fprintln(w, "\nflags:")
		fs.SetOutput(w)
		fs.PrintDefaults()
	}
	fmt.Fprintln(w, "\nexample:")
	for _, line := range v.Example {
		fmt.Fprintf(w, "  %s\n", line)
	}
}
