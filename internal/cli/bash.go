package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// What Bash completes beside words: the names of files and folders, and serial
// ports and schemes where an address stands.
const (
	Files = "@files"
	Dirs  = "@dirs"
	URLs  = "@urls"
)

// Bash writes a script by which bash completes the program's verbs, flags and
// values. values says what may stand for the value of a flag, by what its usage
// calls it (FILE), or by verb and flag (scan -protocol): words with spaces between
// them, Files, Dirs, URLs, or "$(…)", which the shell runs with the words before as
// its arguments.
func (p Program) Bash(w io.Writer, values map[string]string) error {
	var b strings.Builder
	name := p.Name
	fmt.Fprintf(&b, "# bash completion for %s, made by `%s completion bash`\n\n", name, name)
	fmt.Fprintf(&b, bashHead, name)
	fmt.Fprintf(&b, "\tlocal verbs='%s help'\n", strings.Join(p.names(), " "))
	b.WriteString("\tif ((${#words[@]} <= 1)) || [[ ${words[1]} == help && ${#words[@]} -le 2 ]]; then\n\t\t_" + name + "_words \"$verbs\"\n\t\treturn\n\tfi\n")
	b.WriteString("\tcase \"${words[1]} $prev\" in\n")
	for _, v := range p.Verbs {
		for _, f := range v.Flags() {
			if f.Value == "" {
				continue
			}
			say, ok := values[v.Name+" -"+f.Name]
			if !ok {
				say = values[f.Value]
			}
			fmt.Fprintf(&b, "\t'%s -%s' | '%s --%s')\n\t\t%s\n\t\treturn\n\t\t;;\n", v.Name, f.Name, v.Name, f.Name, p.say(say))
		}
	}
	b.WriteString("\tesac\n\tcase ${words[1]} in\n")
	for _, v := range p.Verbs {
		fmt.Fprintf(&b, "\t%s)\n\t\tif [[ $cur == -* ]]; then\n\t\t\t_%s_words '%s'\n", v.Name, name, strings.Join(v.flagNames(), " "))
		if first := p.first(v); len(first) > 0 {
			fmt.Fprintf(&b, "\t\telif ((position == 0)); then\n\t\t\t%s\n", strings.Join(first, "\n\t\t\t"))
		}
		if strings.Contains(v.Args, " FILE") {
			fmt.Fprintf(&b, "\t\telse\n\t\t\t%s\n", p.say(Files))
		}
		b.WriteString("\t\tfi\n\t\t;;\n")
	}
	fmt.Fprintf(&b, "\tesac\n}\n\ncomplete -o filenames -o nospace -F _%s %s\n", name, name)
	_, err := io.WriteString(w, b.String())
	return err
}

func (p Program) names() []string {
	var all []string
	for _, v := range p.Verbs {
		all = append(all, v.Name)
	}
	return all
}

func (v Verb) flagNames() []string {
	all := []string{"-h"}
	for _, f := range v.Flags() {
		all = append(all, "-"+f.Name)
	}
	return all
}

// first gives the commands that complete a verb's first argument.
func (p Program) first(v Verb) (commands []string) {
	if words := v.Words(); len(words) > 0 {
		commands = append(commands, p.say(strings.Join(words, " ")))
	}
	if strings.Contains(v.Args, "URL") {
		commands = append(commands, p.say(URLs))
	}
	if slices.Contains(strings.Split(v.Args, "|"), "FILE") {
		commands = append(commands, p.say(Files))
	}
	return commands
}

// say gives the command that completes a value.
func (p Program) say(what string) string {
	switch {
	case what == "":
		return ":"
	case what == Files, what == Dirs, what == URLs:
		return "_" + p.Name + "_" + strings.TrimPrefix(what, "@")
	case strings.HasPrefix(what, "$("):
		return "_" + p.Name + "_words \"" + what + "\""
	}
	return "_" + p.Name + "_words '" + what + "'"
}

// bashHead is the same for every program. Bash breaks words at ':' and '=', so that
// what stands before the last of these in an address is taken off what is offered.
const bashHead = `_%[1]s_words() {
	local word
	while read -r word; do
		COMPREPLY+=("$word ")
	done < <(compgen -W "$1" -- "$cur")
}

_%[1]s_files() {
	local word
	while read -r word; do
		[[ -d $word ]] && word=$word/ || word="$word "
		COMPREPLY+=("$word")
	done < <(compgen -f -- "$cur")
}

_%[1]s_dirs() {
	local word
	while read -r word; do
		COMPREPLY+=("$word/")
	done < <(compgen -d -- "$cur")
}

_%[1]s_urls() {
	local word path
	if [[ $cur == *://* ]]; then
		path=${cur#*://}
		while read -r word; do
			[[ $word == /dev/pts || $word == /dev/fd ]] && continue
			[[ -d $word ]] && word=$word/
			COMPREPLY+=("${cur%%%%://*}://$word")
		done < <(compgen -f -- "${path:-/dev/tty}")
	else
		while read -r word; do
			COMPREPLY+=("$word")
		done < <(compgen -W 'serial:// tcp:// modbus+rtu:// modbus+tcp:// modbus+rtuovertcp:// dlms+hdlc:// dlms+wrapper:// dlms+udp:// dlms+modee:// iec21:// plc+prime:// plc+gateway:// plc+g3://' -- "$cur")
	fi
	if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
		COMPREPLY=("${COMPREPLY[@]#"${cur%%"${cur##*:}"}"}")
	fi
}

_%[1]s() {
	local cur='' prev='' position=0 i word joined=0
	local -a words=()
	COMPREPLY=()
	for ((i = 0; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ $word =~ ^[:=]+$ ]] && ((${#words[@]} > 1)); then
			words[${#words[@]} - 1]+=$word
			joined=1
		elif ((joined)); then
			words[${#words[@]} - 1]+=$word
			joined=0
		else
			words+=("$word")
		fi
	done
	cur=${COMP_WORDS[COMP_CWORD]}
	if [[ $cur =~ ^[:=]+$ ]] || ((joined)); then
		i=$((${#words[@]} - 1))
		cur=${words[i]}$cur
		unset "words[i]"
	fi
	prev=${words[${#words[@]} - 1]}
	for ((i = 2; i < ${#words[@]}; i++)); do
		[[ ${words[i]} == -* || ${words[i - 1]} == -* ]] || position=$((position + 1))
	done
`
