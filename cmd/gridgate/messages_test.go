package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gridgate/agent/doctor"
	"gridgate/drivers/drivertest"
	"gridgate/internal/proctest"
)

// technician is the guide with the table of messages.
func technician(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/technician.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The table of docs/technician.md and that of the program are one, in one order: the
// first line that fits counts in both.
func TestMessagesAreDocumented(t *testing.T) {
	t.Parallel()
	_, table, ok := strings.Cut(technician(t), "| error says | do |\n| --- | --- |\n")
	if !ok {
		t.Fatal("no table of errors")
	}
	var have []string
	for row := range strings.Lines(table) {
		if !strings.HasPrefix(row, "|") {
			break
		}
		have = append(have, strings.TrimSpace(row))
	}
	all := doctor.Messages()
	for i := range max(len(have), len(all)) {
		got, want := "", ""
		if i < len(have) {
			got = have[i]
		}
		if i < len(all) {
			want = fmt.Sprintf("| `%s` | %s |", all[i].Match, all[i].Remedy)
		}
		if got != want {
			t.Fatalf("row %d of the guide is\n%s\nand the program has\n%s", i+1, got, want)
		}
	}
	for i, m := range all {
		if m.Match == "" || m.Remedy == "" || strings.ContainsAny(m.Match+m.Remedy, "|\n") {
			t.Errorf("%+v", m)
		}
		for _, before := range all[:i] {
			if strings.Contains(m.Match, before.Match) {
				t.Errorf("%q never counts, since %q comes before it", m.Match, before.Match)
			}
		}
	}
}

// literals gives the texts of the program's source below these folders, each with its
// place. What + joins is one.
func literals(t *testing.T, folders ...string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	var text func(ast.Expr) (string, bool)
	text = func(e ast.Expr) (string, bool) {
		switch e := e.(type) {
		case *ast.BasicLit:
			if e.Kind != token.STRING {
				return "", false
			}
			s, err := strconv.Unquote(e.Value)
			return s, err == nil
		case *ast.BinaryExpr:
			a, okA := text(e.X)
			b, okB := text(e.Y)
			return a + b, okA || okB
		}
		return "", false
	}
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join("../..", folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "doctor/messages.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if e, ok := n.(ast.Expr); ok {
					if s, ok := text(e); ok {
						if texts[s] == "" {
							texts[s] = files.Position(n.Pos()).String()
						}
						return false
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(texts) < 500 {
		t.Fatalf("only %d texts found", len(texts))
	}
	return texts
}

// isQuestion finds the questions that errors ask a technician: words and a question
// mark, at the end or before a bracket or what is wrapped.
var isQuestion = regexp.MustCompile(`[a-z]+ [^?]*[a-zA-Z0-9)=%.]\?($|[ ):])`)

// Whatever an error asks a technician is in the table: who adds a question adds a row.
func TestQuestionsHaveAnswers(t *testing.T) {
	t.Parallel()
	found := 0
	for s, place := range literals(t, "drivers", "dlms", "internal/mqtt", "agent", "buffer") {
		if !isQuestion.MatchString(s) || strings.Contains(place, "agent/doctor/") || strings.Contains(place, "agent/web/") { // the API asks who writes programs
			continue
		}
		found++
		// What %w stands for is in the table too, but says less.
		spelled := strings.NewReplacer(
			"%w: %w: is it %s?", "garbled answer: is it %s?", ": is it switched on,", "the modem does not answer",
			": is this its port for AT commands, and", "the modem answers garbage",
		).Replace(s)
		if doctor.Remedy(spelled) == doctor.Remedy("what nobody says") {
			t.Errorf("%s: %q is in no row of agent/doctor/messages.go", place, s)
		}
	}
	if found < 60 {
		t.Errorf("only %d questions found", found)
	}
}

// Every row is of something that the program says, or the system that it runs on.
func TestRowsAreSaid(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for s := range literals(t, "drivers", "dlms", "internal", "agent", "buffer", "configs", "cmd/gridgate") {
		all.WriteString(s + "\n")
	}
	said := all.String()
	system := map[string]bool{ // of the kernel, and of crypto/tls
		"permission denied": true, "read-only file system": true, "no space left on device": true, "private key does not match": true,
	}
	for _, m := range doctor.Messages() {
		if strings.Contains(said, m.Match) || system[m.Match] {
			continue
		}
		if !spelled(said, m.Match) {
			t.Errorf("nothing says %q", m.Match)
		}
	}
}

// spelled says whether a text is made of what is said and what stands for verbs in it.
func spelled(said, match string) bool {
	for _, known := range []struct{ match, by string }{
		{"in use by gridgate", "in use by %s"},
		{"in use by another program", "another program"},
		{"(exception 2)", "(exception %d)"},
		{"is suite=", "is suite=%d"},
		{"no route: is the modem up", "no route"},
		{"buffer: not open", "buffer"},
	} {
		if known.match == match {
			return strings.Contains(said, known.by)
		}
	}
	return false
}

// TestMessagesAreCaused makes the built program say what the table has, by doing what
// a technician does wrong.
func TestMessagesAreCaused(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	p := newPlace(t, bin)
	line := p.modbusLine(1)
	const password = "12345678"
	first := proctest.FreePorts(t, 2)
	p.sim(fmt.Sprint(first), "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", first), "-password", password)
	p.sim(fmt.Sprint(first+1), "modbus", "-listen", fmt.Sprintf("127.0.0.1:%d", first+1), "-model", "eastron-sdm120")
	broken := p.path("broken")
	p.sim("unit 1", "modbus", "-pty", "-link", broken, "-model", "eastron-sdm120", "-faults", "garbage", "-every", "1")
	silent, other := server(t, ""), server(t, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
	tty, err := drivertest.Pty()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	// A busy line, of an agent.
	busy := newPlace(t, bin)
	busy.unit("m", busy.modbusLine(1), 1, "")
	busy.run("it reads", stateIs("m", "ok"))

	modbus := func(where string) []string { return []string{"read", "-control", p.path("none"), where} }
	dlms := func(where string, more ...string) []string {
		return append([]string{"read", "-control", p.path("none"), "-counters", p.dir, where}, more...)
	}
	rtu := func(path string, unit int) string {
		return fmt.Sprintf("modbus+rtu://%s?unit=%d&model=eastron-sdm120&timeout=5s", path, unit)
	}
	meter := fmt.Sprintf("dlms+wrapper://127.0.0.1:%d", first)
	for want, args := range map[string][]string{
		"no such port":                                          modbus(rtu("/dev/ttyGridgate9", 1)),
		"in use by gridgate":                                    modbus(rtu(busy.path("rs485"), 1)),
		"is not a serial port":                                  modbus(rtu("/dev/null", 1)),
		"are A and B wired right":                               modbus(rtu(line, 9)),
		"do two meters have this unit number":                   modbus(rtu(broken, 1)),
		"is the port number right, and does the device listen?": modbus("modbus+tcp://127.0.0.1:1?unit=1&model=eastron-sdm120"),
		"is the meter on, is it":                                modbus("modbus+tcp://" + silent + "?unit=1&model=eastron-sdm120&timeout=100ms"),
		"is no Modbus TCP header":                               modbus("modbus+tcp://" + other + "?unit=1&model=eastron-sdm120"),
		"the model has no register for it":                      append(modbus(rtu(line, 1)), "1-0:99.7.0"),
		"wrong password":                                        dlms(meter + "?client=17&auth=lls&password=87654321"),
		"auth=lls?":                                             dlms(meter + "?client=17"),
		"does it know this client?":                             dlms(meter + "?client=99"),
		"object undefined":                                      dlms(meter+"?client=16", "1-0:77.7.0"),
		"is the meter on, does it know":                         dlms("dlms+wrapper://" + silent + "?timeout=100ms"),
		"does this port speak DLMS over TCP?":                   dlms("dlms+wrapper://" + other),
		"to the sign-on":                                        modbus("iec21://" + tty.Path + "?timeout=100ms"),
		"put the secret into that file":                         dlms(meter + "?client=17&auth=lls&password=file:" + p.path("nowhere")),
		"no secret to be had":                                   dlms(meter + "?client=17&auth=lls&password=env:GRIDGATE_NOT_SET"),
		"no agent runs here":                                    {"status", "-control", p.path("none")},
		"name the file with -config":                            {"run", "-config", p.path("none.yaml")},
		"not YAML":                                              {"check", "-config", p.file("tab.yaml", "version: 1\n\tsite: s\n", 0o600)},
		"another agent serves it":                               {"run", "-config", p.file("second.yaml", strings.ReplaceAll(config(t, busy), busy.path("buffer"), p.path("buffer")), 0o600)},
	} {
		saysAndAnswers(t, bin, want, args)
	}
	const wrong = "?client=17&auth=lls&password=00000000"
	for range 2 {
		saysAndAnswers(t, bin, "wrong password", dlms(meter+wrong))
	}
	saysAndAnswers(t, bin, "times with these credentials", dlms(meter+wrong))
}

func config(t *testing.T, p *place) string {
	t.Helper()
	b, err := os.ReadFile(p.path("gridgate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// saysAndAnswers runs the built program, which fails and says want, and what the table
// says to that is the row of want.
func saysAndAnswers(t *testing.T, bin, want string, args []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "gridgate"), args...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("%q does not fail: %s", args, out)
	}
	if !strings.Contains(string(out), want) {
		t.Errorf("%q says %s; want %q", args, out, want)
		return
	}
	at := slices.IndexFunc(doctor.Messages(), func(m doctor.Message) bool { return m.Match == want })
	if at < 0 {
		t.Errorf("%q is in no row", want)
		return
	}
	if first := slices.IndexFunc(doctor.Messages(), func(m doctor.Message) bool { return strings.Contains(string(out), m.Match) }); first != at {
		t.Errorf("%s\nis answered by the row of %q; want that of %q", out, doctor.Messages()[first].Match, want)
	}
}

// server takes connections, says text and no more.
func server(t *testing.T, text string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = c.Close() }()
				var b [512]byte
				for n, err := c.Read(b[:]); err == nil && n > 0; n, err = c.Read(b[:]) {
					if _, err := io.WriteString(c, text); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); conns.Wait() })
	return l.Addr().String()
}
