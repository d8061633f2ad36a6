package main

import (
	"bytes"
	"os"
	"testing"
)

// What reads as counts of tries is written as it was read, and names a slot.
func FuzzParseTries(f *testing.F) {
	for _, file := range []string{"testdata/uboot-2023.01.env", "testdata/without-trial.env"} {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseTries(b)
		if err != nil {
			return
		}
		if n := got.next(); n != "a" && n != "b" && n != "f" {
			t.Errorf("the next start takes %q", n)
		}
		again, err := parseTries(got.bytes())
		if err != nil || !bytes.Equal(again.bytes(), got.bytes()) {
			t.Errorf("%+v %v", again, err)
		}
	})
}

// Whatever is asked, the answer is one of two kinds, and nothing is installed.
func FuzzAnswer(f *testing.F) {
	for _, line := range []string{`{"do":"state"}`, `{"do":"install","files":[{"name":"gridgate","size":1,"sha256":"00","path":"/data/x"}]}`, `{"do":"switch"}`, `[`} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r := newRig(t, "a")
		answer, restart := r.answer(line)
		if answer.OK == (answer.Error != "") || restart && !answer.OK || r.installed {
			t.Errorf("%s: %+v", line, answer)
		}
	})
}
