package configs

import (
	"strings"
	"testing"
	"time"
)

func outputsText(outputs string) []byte {
	return []byte("version: 1\nsite: s\ngateway: g\nuplink: {broker: \"tcp://h:1\"}\ngroups:\n  a: {lane: instant, every: 1m, channels: [1-0:1.8.0]}\n" +
		"meters:\n  - {id: m, url: \"dlms+wrapper://h\", groups: [a], protected: true}\n" + outputs)
}

func TestOutputs(t *testing.T) {
	t.Parallel()
	c, err := Parse("c", outputsText("outputs:\n  boiler: {path: /x, \"on\": high, rest: low, most: 90m}\n  pump: {path: /y}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Outputs) != 2 || c.Outputs[0] != (Output{"boiler", "/x", "high", "low", 90 * time.Minute}) || c.Outputs[1] != (Output{"pump", "/y", "1", "0", DefaultOutputMost}) {
		t.Errorf("%+v", c.Outputs)
	}
	if !c.Meters[0].Protected {
		t.Error("the meter is not protected")
	}
	other, err := Parse("c", []byte(strings.Replace(string(outputsText("outputs: {boiler: {path: /x}}")), "protected: true", "protected: false", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(c, other); len(d.Restart) != 1 || d.Restart[0] != "outputs" || !d.Limits {
		t.Errorf("%+v", d)
	}
	for text, want := range map[string]string{
		"outputs: [a]":                                     "outputs by name",
		"outputs: {boiler: {}}":                            "outputs.boiler.path: missing",
		"outputs: {Boiler: {path: /x}}":                    "want a name",
		"outputs: {a: {path: /x}, b: {path: /x}}":          "is also that of the output a",
		"outputs: {a: {path: /x, \"on\": \"0\"}}":          "it would switch nothing",
		"outputs: {a: {path: /x, most: 0s}}":               "outputs.a.most",
		"outputs: {a: {path: /x, \"on\": \"a b\"}}":        "outputs.a.on",
		"outputs: {a: {path: /x, hurry: 1}}":               "hurry",
		"outputs: {" + strings.Repeat("a: {}, ", 20) + "}": "has 20 outputs",
	} {
		if _, err := Parse("c", outputsText(text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}
