package cli

import (
	"flag"
	"io"
	"strings"
)

// Flag is a flag of a verb, as it shows itself.
type Flag struct {
	Name    string
	Value   string // what its value is called in capitals, "" for one that has none
	Usage   string
	Default string // "" where there is none
}

// Flags gives the verb's flags, sorted.
func (v Verb) Flags() []Flag {
	fs := flag.NewFlagSet(v.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	v.Setup(fs)
	var all []Flag
	fs.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		d := f.DefValue
		if d == "false" || d == "0" || d == "0s" {
			d = ""
		}
		all = append(all, Flag{Name: f.Name, Value: strings.ToUpper(value), Usage: usage, Default: d})
	})
	return all
}

// Words gives what the first argument of the verb may be: the words of Args in small
// letters.
func (v Verb) Words() (words []string) {
	for part := range strings.SplitSeq(v.Args, "|") {
		word, _, _ := strings.Cut(strings.TrimSpace(part), " ")
		if word != "" && word == strings.ToLower(word) && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz-") == "" && word != "-" {
			words = append(words, word)
		}
	}
	return words
}
