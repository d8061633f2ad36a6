package cli

import (
	"fmt"
	"io"
	"strings"
)

// Man writes the program's page of section 1 of the manual, in the macros of man(7).
// date is when it was written, version is of the program, about what stands behind the verbs: whole sections.
func (p Program) Man(w io.Writer, date, version, about string) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".\\\" made by `%s man`\n.TH %s 1 %s \"%s %s\" \"User Commands\"\n", p.Name, strings.ToUpper(p.Name), date, p.Name, roff(version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", p.Name, roff(p.Summary))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I verb\n[\\fIflags\\fR] [\\fIarguments\\fR]\n", p.Name)
	b.WriteString(".SH DESCRIPTION\nFlags may stand before and behind arguments.\n")
	fmt.Fprintf(&b, ".B %s\n.I verb\n.B \\-h\nshows what a verb takes.\n.SH VERBS\n", p.Name)
	for _, v := range p.Verbs {
		fmt.Fprintf(&b, ".SS \"%s %s\"\n%s.\n", p.Name, roff(strings.TrimSpace(v.Name+" "+v.Args)), roff(v.Summary))
		for _, f := range v.Flags() {
			value := ""
			if f.Value != "" {
				value = " \\fI" + roff(f.Value) + "\\fR"
			}
			fmt.Fprintf(&b, ".TP\n\\fB\\-%s\\fR%s\n%s", roff(f.Name), value, roff(f.Usage))
			if f.Default != "" {
				fmt.Fprintf(&b, " (default: %s)", roff(f.Default))
			}
			b.WriteString("\n")
		}
		if len(v.Example) > 0 {
			b.WriteString(".PP\nExample:\n.PP\n.nf\n.RS\n")
			for _, e := range v.Example {
				b.WriteString(roff(e) + "\n")
			}
			b.WriteString(".RE\n.fi\n")
		}
	}
	b.WriteString(".SH EXIT STATUS\n.TP\n.B 0\nDone.\n.TP\n.B 1\nFailed.\n.TP\n.B 2\nThe command line is wrong.\n")
	b.WriteString(about)
	_, err := io.WriteString(w, b.String())
	return err
}

// roff writes text so that nothing in it is a request or an escape: a backslash, a
// hyphen that is to be copied, a point or an apostrophe at the beginning of a line.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "~", `\(ti`, "^", `\(ha`, `"`, `\(dq`,
		"…", `\&...`, "×", `\(mu`, "°", `\(de`, "µ", `\(mc`, "→", `\(->`, "\n", " ").Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
