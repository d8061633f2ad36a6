package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

const (
	matrixPassword = "12345678"
	matrixTitle    = "4752494447415445"
	matrixEK       = "000102030405060708090a0b0c0d0e0f"
	matrixAK       = "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
	matrixKeys     = "&suite=1&title=" + matrixTitle + "&ek=" + matrixEK + "&ak=" + matrixAK
)

// matrixLine is a transport, and the meter that serves it.
type matrixLine struct {
	name, transport string
	pty, hdlc       bool
}

func matrixLines() []matrixLine {
	return []matrixLine{
		{name: "wrapper", transport: "wrapper"},
		{name: "udp", transport: "udp"},
		{name: "hdlc over TCP", transport: "hdlc", hdlc: true},
		{name: "hdlc on a terminal", transport: "hdlc", hdlc: true, pty: true},
		{name: "modee over TCP", transport: "modee", hdlc: true},
		{name: "modee on a terminal", transport: "modee", hdlc: true, pty: true},
	}
}

// tool runs gridgate as a process, with a home of its own.
type tool struct {
	t         *testing.T
	bin, home string
}

func newTool(t *testing.T, bin string) tool {
	t.Helper()
	return tool{t, filepath.Join(bin, "gridgate"), t.TempDir()}
}

func (g tool) run(args ...string) (code int, out, errOut string) {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), g.bin, args...)
	cmd.Env = append(os.Environ(), "HOME="+g.home, "XDG_STATE_HOME=")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		g.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// start starts the meter of a line, and gives the address of it without a
// query, and the one that the meter prints for client 1: ECDSA, ciphered.
func (l matrixLine) start(t *testing.T, bin string) (base, secured string) {
	t.Helper()
	args := []string{
		"dlms", "-transport", l.transport, "-password", matrixPassword, "-inactivity", "1s",
		"-auth", "ecdsa", "-suite", "1", "-security", "authenc",
	}
	if l.hdlc {
		args = append(args, "-physical", "17")
	}
	if l.pty {
		args = append(args, "-pty", "-link", filepath.Join(t.TempDir(), "line"))
	} else {
		args = append(args, "-listen", fmt.Sprintf("127.0.0.1:%d", proctest.FreePorts(t, 1)))
	}
	p := proctest.Start(t, nil, filepath.Join(bin, "metersim"), args...)
	found := regexp.MustCompile(`serial GRG000001 client 1 title 4752470000000001 url (\S+)\n`).FindStringSubmatch(p.Await("url dlms+"))
	if found == nil {
		t.Fatalf("no address in %s", p.Output())
	}
	base, _, _ = strings.Cut(found[1], "?")
	if l.hdlc {
		return base + "?physical=17&", found[1]
	}
	return base + "?", found[1]
}

// TestEveryLineAndAuthentication reads a meter of each kind of address by each
// authentication, with processes as they are on a gateway, and has what is
// wrong with an address told.
func TestEveryLineAndAuthentication(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	for _, line := range matrixLines() {
		t.Run(line.name, func(t *testing.T) {
			t.Parallel()
			base, secured := line.start(t, bin)
			reads(t, newTool(t, bin), base, secured)
			lists(t, newTool(t, bin), base+"client=16")
			refuses(t, newTool(t, bin), line, base, secured)
			losesCount(t, newTool(t, bin), secured)
		})
	}
}

// reads reads by each authentication, the flags behind all else.
func reads(t *testing.T, g tool, base, secured string) {
	t.Helper()
	for auth, url := range map[string]string{
		"none":   base + "client=16",
		"lls":    base + "client=17&auth=lls&password=" + matrixPassword,
		"hls2":   base + "client=18&auth=hls2&password=" + matrixPassword,
		"md5":    base + "client=19&auth=md5&password=" + matrixPassword,
		"sha1":   base + "client=20&auth=sha1&password=" + matrixPassword,
		"gmac":   base + "client=21&auth=gmac" + matrixKeys,
		"sha256": base + "client=22&auth=sha256&title=" + matrixTitle + "&password=" + matrixPassword,
		"ecdsa":  secured,
	} {
		before := time.Now()
		code, out, errOut := g.run("read", url, "1-0:1.8.0", "-json")
		if code != 0 || errOut != "" {
			t.Errorf("%s: exit code %d, %s%s", auth, code, out, errOut)
			continue
		}
		if err := isEnergy(out, before, time.Now()); err != nil {
			t.Errorf("%s: %v: %s", auth, err, out)
		}
	}
}

// lists reads a load profile and the list of objects.
func lists(t *testing.T, g tool, url string) {
	t.Helper()
	to := time.Now().Truncate(15 * time.Minute)
	code, out, errOut := g.run("profile", url, "-json", "1-0:99.1.0", "-from", to.Add(-time.Hour).Format(time.RFC3339), "-to", to.Format(time.RFC3339))
	energies := 0
	for _, line := range lines(out) {
		var row struct {
			Meter, Serial, Channel, Time, Unit, Quality *string
			Value                                       json.RawMessage
			Status                                      *uint64
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil || row.Quality == nil || row.Time == nil || row.Status == nil {
			t.Fatalf("profile: exit code %d, %v: %s%s", code, err, line, errOut)
		}
		at, err := time.Parse(time.RFC3339, *row.Time)
		if err == nil && *row.Channel == "1-0:1.8.0*255/3:2" && *row.Unit == "Wh" {
			energies++
			tenths := strings.Replace(string(row.Value), ".", "", 1)
			if want := fmt.Sprint(drawnTenths(at)); tenths != want {
				t.Errorf("profile: %s: the meter holds %s tenths", line, want)
			}
		}
	}
	if code != 0 || errOut != "" || energies != 5 {
		t.Errorf("profile: exit code %d, %d rows\n%s%s", code, energies, out, errOut)
	}
	const energy = `{"obis":"1-0:1.8.0*255","class":3,"name":"register","version":0,"readable":[1,2,3]}` + "\n"
	if code, out, errOut := g.run("objects", url, "-json"); code != 0 || errOut != "" || !strings.Contains(out, energy) {
		t.Errorf("objects: exit code %d\n%s%s", code, out, errOut)
	}
}

// isEnergy says whether line is the energy that the first simulated meter drew
// until a time from before to after, in the form that is documented.
func isEnergy(line string, before, after time.Time) error {
	var row struct {
		Meter, Serial, Channel, Unit, Quality *string
		Time                                  *time.Time
		Value                                 json.RawMessage
	}
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&row); err != nil {
		return err
	}
	switch {
	case row.Meter == nil || row.Serial == nil || row.Channel == nil || row.Unit == nil || row.Quality == nil || row.Time == nil:
		return errors.New("a field is missing")
	case strings.Count(line, "\n") != 1 || *row.Serial != "GRG000001" || *row.Channel != "1-0:1.8.0*255/3:2" || *row.Unit != "Wh":
		return errors.New("another value, or more than one")
	case row.Time.Before(before.Truncate(time.Millisecond)) || row.Time.After(after):
		return errors.New("it was not read then")
	case !regexp.MustCompile(`^[1-9][0-9]*\.[0-9]$`).Match(row.Value):
		return fmt.Errorf("value %s: want a number with all its digits", row.Value)
	}
	value, _ := new(big.Float).SetString(string(row.Value))
	tenths, _ := value.Mul(value, big.NewFloat(10)).Int64()
	if low, high := drawnTenths(before), drawnTenths(after); tenths < low || tenths > high {
		return fmt.Errorf("value %s: the meter holds %d to %d tenths", row.Value, low, high)
	}
	return nil
}

// drawnTenths is what the first simulated meter has drawn until at, in tenths
// of a watt-hour: the integral of 350 − 150 sin x − 75 cos 2x watt, x once
// round a day.
func drawnTenths(at time.Time) int64 {
	since := at.Sub(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	x := 2 * math.Pi * (since % (24 * time.Hour)).Hours() / 24
	return int64(10 * (350*since.Hours() + 24/(2*math.Pi)*(150*(math.Cos(x)-1)-75/2.0*math.Sin(2*x))))
}

// refuses shows the meter what it does not take.
func refuses(t *testing.T, g tool, line matrixLine, base, secured string) {
	t.Helper()
	const soon = "&timeout=300ms"
	elsewhere, nobody := base+"client=16&server=55"+soon, "does it know client 16 and server 55?"
	if line.hdlc {
		elsewhere = strings.Replace(base, "physical=17", "physical=18", 1) + "client=16" + soon
		nobody = "client 16, server 1 and physical 18"
	}
	if line.transport == "modee" {
		nobody = "no answer in HDLC at 9600 baud 8N1, after the meter had signed on"
	}
	for what, c := range map[string]struct{ url, want string }{
		"client":      {base + "client=99", "the meter refused client 99 (does it know this client?)"},
		"password":    {base + "client=17&auth=lls&password=Hunter22", "the meter refused client 17: authentication failed (wrong password?)"},
		"no password": {base + "client=17", "the meter refused client 17: authentication failed (it wants a password: auth=lls?)"},
		"secret of a hash": {
			base + "client=22&auth=sha256&title=" + matrixTitle + "&password=Hunter22",
			"the meter refused client 22: authentication failed (wrong password or title?)",
		},
		"key of a proof": {
			base + "client=21&auth=gmac" + strings.Replace(matrixKeys, "ek=00", "ek=EE", 1),
			"the meter refused client 21: authentication failed (wrong ek, ak, suite or title?)",
		},
		"key": {
			strings.Replace(secured, "ek=00", "ek=EE", 1),
			"the meter refused client 1: authentication failed (it cannot decipher: wrong ek, ak, suite or title?)",
		},
		"authentication key": {
			strings.Replace(secured, "ak=d0", "ak=EE", 1),
			"the meter refused client 1: authentication failed (it cannot decipher: wrong ek, ak, suite or title?)",
		},
		"signing key": {
			regexp.MustCompile(`sk=[0-9a-f]{8}`).ReplaceAllString(secured, "sk=0EEEEEEE"),
			"the meter refused client 1: authentication failed (wrong signing key sk, or title?)",
		},
		"protection": {base + "client=1", "the meter refused client 1 (does it want security=auth, enc or authenc from this client?)"},
		"address":    {elsewhere, nobody},
	} {
		code, out, errOut := g.run("read", "-json", c.url, "1-0:1.8.0")
		if code != 1 || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("wrong %s: exit code %d, %s%s\nwant %q", what, code, out, errOut, c.want)
		}
		if strings.Contains(errOut, "Hunter22") || strings.Contains(strings.ToLower(errOut), matrixEK[2:]) || strings.Contains(errOut, matrixAK[2:]) {
			t.Errorf("wrong %s: a secret is printed: %s", what, errOut)
		}
	}
}

// losesCount uses a key in two places that do not know of one another, the
// second of them behind by more than may be.
func losesCount(t *testing.T, g tool, secured string) {
	t.Helper()
	other := filepath.Join(g.home, "other")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"counters", "accept", secured, "-sent", "3000000"}, 0, "counters go on with 3000001"},
		{[]string{"read", secured, "1-0:1.8.0"}, 0, "1-0:1.8.0"},
		{[]string{"counters", "accept", secured, "-sent", "0", "-counters", other}, 0, "counters go on with 1"},
		{[]string{"read", secured, "1-0:1.8.0", "-counters", other}, 1, "is the key used elsewhere?"},
		{[]string{"read", secured, "1-0:1.8.0", "-counters", other}, 1, "`gridgate counters accept -sent 300"},
		{[]string{"counters", "accept", secured, "-sent", "3000100", "-counters", other}, 0, "counters go on with 3000101"},
		{[]string{"read", secured, "1-0:1.8.0", "-counters", other}, 0, "1-0:1.8.0"},
	} {
		code, out, errOut := g.run(c.args...)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("%s %v: exit code %d, %s%s\nwant %d, %q", c.args[0], c.args[2:], code, out, errOut, c.code, c.want)
		}
	}
}

// TestUsageOfProcesses: what is wrong with a command line ends a process with 2,
// and help with 0.
func TestUsageOfProcesses(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	for _, c := range []struct {
		code int
		args string // the program first
		want string
	}{
		{0, "gridgate read -help", "gridgate read 'dlms+wrapper://"},
		{0, "gridgate help profile", "gridgate profile 'dlms+wrapper://"},
		{0, "metersim dlms -help", "metersim dlms -listen 127.0.0.1:4059"},
		{2, "gridgate", "no verb given"},
		{2, "gridgate reed", `unknown verb "reed"`},
		{2, "gridgate read", "want a URL or -config FILE"},
		{2, "gridgate read dlms+wrapper://h -jsn", "-jsn"},
		{2, "gridgate read dlms+wrapper://h?ref=sn&auth=mdfive", "auth: want"},
		{2, "gridgate read dlms+udp://h?ref=sn", "sn is not for UDP"},
		{2, "gridgate read dlms+wrapper://h 1-0:1.8", "1-0:1.8"},
		{2, "gridgate profile dlms+wrapper://h", "want a URL and the OBIS code"},
		{2, "gridgate objects", "want one URL"},
		{2, "gridgate listen", "want one URL"},
		{1, "gridgate read dlms+wrapper://h?client=1&auth=gmac&title=GRIDGATE&ek=file:/nonexistent&ak=file:/nonexistent", "/nonexistent"},
		{2, "metersim dlms -auth gmac -security authenc -suite 3", "-suite 3: want 0, 1 or 2"},
		{2, "metersim dlms -transport udp -ref sn -auth none", "-ref sn is not of -transport udp"},
		{2, "metersim dlms -auth lls", "-auth lls needs -password"},
		{2, "metersim dlms -faults frmr", "frmr is not of -transport wrapper"},
		{2, "metersim dlms 4059", `unexpected argument "4059"`},
		{2, "metersim replay", "want -trace FILE"},
	} {
		args := strings.Fields(c.args)
		p := proctest.Start(t, []string{"HOME=" + t.TempDir()}, filepath.Join(bin, args[0]), args[1:]...)
		if code := p.Wait(); code != c.code || !strings.Contains(p.Output(), c.want) {
			t.Errorf("%s: exit code %d, %s\nwant %d, %q", c.args, code, p.Output(), c.code, c.want)
		}
	}
}
