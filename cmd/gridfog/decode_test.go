package main

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/batch"
	"gridgate/buffer"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/proctest"
)

// TestDecodeExport prints what a gateway exported, and as much of it as there
// is when the file is cut short.
func TestDecodeExport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	row := meter.Row{
		Meter: "m1", Serial: "S1", Channel: "1-0:1.8.0*255/3:2", Stamp: meter.Stamp{Time: 1_700_000_000_000},
		Value: meter.UintValue(12345, -1), Unit: meter.WattHour, Lane: meter.Billing,
	}
	if err := s.Append(t.Context(), meter.Append{
		Rows: []meter.Row{row, row}, Losses: []meter.Loss{{Lane: meter.Instant, Reason: meter.Quota, Count: 3}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := buffer.Export(dir, &b, buffer.ExportOptions{Site: "z", Gateway: "g"}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gw.ggex")
	for _, cut := range []int{0, 1} {
		if err := os.WriteFile(file, b.Bytes()[:b.Len()-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		out, errOut, code := gridfog(t, "", "decode", file)
		if code != cut || strings.Count(out, "\n") != 2 || !strings.Contains(out, `"site":"z"`) || !strings.Contains(out, `1234.5`) {
			t.Errorf("%d %s\n%s", code, errOut, out)
		}
		if !strings.Contains(errOut, "3 rows lost") || strings.Contains(errOut, "not signed") == (cut == 1) || strings.Contains(errOut, "cut short") != (cut == 1) {
			t.Errorf("%s", errOut)
		}
	}
}

// alarmText is a batch with one row, whose text is hostile, and its catalogue.
func alarmText(t *testing.T, text string) (payload, catalogue []byte, hash batch.Hash) {
	t.Helper()
	s := batch.Span{
		Lane: batch.Alarm, Runs: []batch.Run{{First: 9, Count: 1}}, Holes: []batch.Hole{{First: 10, Last: 12, Reason: batch.Quota, Count: 3}}, Last: 12,
		Rows: []batch.Row{{
			Meter: "m", Serial: "S-1", Channel: "event.text", Stamp: batch.Stamp{Time: 1_700_000_000_250}, Lane: batch.Alarm, Quality: batch.Test,
			Value: batch.Value{Kind: batch.Text, Data: text}, Status: 7, HasStatus: true,
		}},
	}
	c := batch.NewCatalogue()
	c.Add(s.Rows)
	payload, err := batch.Append(nil, batch.Header{Site: "north", Gateway: "gw-1", Epoch: 5, Lane: batch.Alarm}, s, c)
	if err != nil {
		t.Fatal(err)
	}
	catalogue, err = c.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return payload, catalogue, c.Hash()
}

// CSV that another reader takes apart, and a table that no text can break.
func TestDecodeForms(t *testing.T) {
	t.Parallel()
	text := "a \"b\", c\n\x1b[2J"
	payload, catalogue, _ := alarmText(t, text)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	b, c, bad, state := write("b", payload), write("c", catalogue), write("bad", []byte("bad")), write("state", []byte(`{"state":"online"}`))
	out, errOut, code := gridfog(t, "", "decode", "-csv", b, c)
	all, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || code != 0 || len(all) != 2 || strings.Join(all[0], " ") != "lane sequence meter serial channel time value unit quality period status site gateway" ||
		strings.Join(all[1], "|") != "alarm|9|m|S-1|event.text|2023-11-14T22:13:20.250Z|"+text+"||test||7|north|gw-1" {
		t.Errorf("%d %v\n%q\n%s", code, err, all, errOut)
	}
	out, _, code = gridfog(t, "", "decode", "-table", b, c)
	if code != 0 || strings.Count(out, "\n") != 2 || strings.Contains(out, "\x1b") || !strings.Contains(out, `a "b", c??[2J`) || !strings.HasPrefix(out, "LANE ") {
		t.Errorf("%d %q", code, out)
	}
	// A bad file among others is told, and does not keep the others from being printed.
	out, errOut, code = gridfog(t, "", "decode", bad, b, filepath.Join(dir, "none"), c)
	if code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(errOut, "bad: neither") || !strings.Contains(errOut, "none: no such file") {
		t.Errorf("%d %q\n%s", code, out, errOut)
	}
	if out, errOut, code = gridfog(t, "", "decode", state); code != 0 || out != "" || !strings.Contains(errOut, "1 states") {
		t.Errorf("%d %q\n%s", code, out, errOut)
	}
	for _, c := range []struct {
		args, text string
	}{
		{"-csv -table x", "want one of them"},
		{"-json -csv x", "want one of them"},
		{"x -for 1s", "go with -topic"},
		{"-topic a/#/b", "stands for a whole level"},
		{"-topic a+/b", "stands for a whole level"},
		{"-topic a -session +", "-session"},
		{"-topic a -broker x", "-broker"},
	} {
		if out, errOut, code := gridfog(t, "", append([]string{"decode"}, strings.Fields(c.args)...)...); code != 2 || out != "" || !strings.Contains(errOut, c.text) {
			t.Errorf("decode %s: %d %s%s", c.args, code, out, errOut)
		}
	}
	if _, errOut, code := gridfog(t, "", "decode", "-topic", ""); code != 2 || !strings.Contains(errOut, "want a topic filter") {
		t.Errorf("no filter: %d %s", code, errOut)
	}
}

func TestTopicFilters(t *testing.T) {
	t.Parallel()
	for filter, want := range map[string]string{
		"gridgate/1/north/gw-1/up/readings/alarm": "gridgate/1/north/gw-1/up/catalog/+",
		"gridgate/1/north/+/up/readings/+":        "gridgate/1/north/+/up/catalog/+",
		"gridgate/1/north/#":                      "gridgate/1/north/+/up/catalog/+ covered",
		"gridgate/1/+/+/up/#":                     "gridgate/1/+/+/up/catalog/+ covered",
		"gridgate/1/+/gw-1/up/+/+":                "gridgate/1/+/gw-1/up/catalog/+ covered",
		"+/+/north":                               "gridgate/1/north/+/up/catalog/+",
		"#":                                       "gridgate/1/+/+/up/catalog/+ covered",
		"else/where":                              "gridgate/1/+/+/up/catalog/+",
	} {
		got := cataloguesOf(filter)
		if covers(filter, got) {
			got += " covered"
		}
		if err := checkFilter(filter); got != want || err != nil {
			t.Errorf("%s needs %s, %v", filter, got, err)
		}
	}
}

// The built program prints what comes under a topic: it gets the catalogues by
// itself, prints what comes twice twice, and goes on after what it cannot read.
func TestDecodeTopics(t *testing.T) {
	t.Parallel()
	address, _, _ := startBroker(t)
	payload, catalogue, hash := alarmText(t, "tamper")
	g := newGateway(t, address)
	g.publish(mqtt.CatalogueTopic("north", "gw-1", hash), true, catalogue)
	p := proctest.Start(t, nil, filepath.Join(proctest.Build(t, "gridfog"), "gridfog"), "decode", "-broker", "mqtt://"+address, "-topic", "gridgate/1/north/gw-1/up/readings/#",
		"-topic", "gridgate/1/+/+/up/state", "-topic", "else", "-csv")
	p.Await("connected")
	const topic = "gridgate/1/north/gw-1/up/readings/alarm"
	for _, b := range [][]byte{[]byte("garbage"), payload[:len(payload)-1], payload, payload} {
		g.publish(topic, false, b)
	}
	g.publish("gridgate/1/north/gw-2/up/readings/alarm", false, payload) // nobody asked for it
	g.publish("gridgate/1/north/gw-2/up/state", false, []byte(`{"state":"online"}`))
	g.publish("else", false, []byte("a\x1bb"))
	text := p.Await("else: a?b")
	if strings.Count(text, "alarm,9,m,S-1,event.text,2023-11-14T22:13:20.250Z,tamper,,test,,7,north,gw-1\r\n") != 2 || strings.Count(text, "lane,sequence") != 1 ||
		strings.Count(text, "corrupt") != 2 || strings.Count(text, "numbers 10 to 12 carry no rows: quota, 3 rows lost") != 2 || !strings.Contains(text, `gw-2/up/state: {"state":"online"}`) {
		t.Error(text)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
