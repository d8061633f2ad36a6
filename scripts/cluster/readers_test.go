package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// readers are the examples of docs/fog.md in other languages: how they are set
// up in an empty folder, from the repository's files, and started.
var readers = map[string]struct {
	files   []string
	setUp   []string
	command []string
}{
	"python": {
		files:   []string{"agent/batch/batch.proto", "agent/batch/decode.py", "docs/examples/fog/reader.py"},
		setUp:   []string{"protoc", "--python_out=.", "batch.proto"},
		command: []string{"/usr/bin/python3", "reader.py"},
	},
	"javascript": {
		files: []string{"agent/batch/batch.proto", "agent/batch/testdata/js/decode.mjs", "docs/examples/fog/reader.mjs", "docs/examples/fog/package.json"},
		// In place of `npm ci`: scripts/setup.sh did it.
		setUp:   []string{"ln", "-s", "REPOSITORY/docs/examples/fog/node_modules", "."},
		command: []string{"node", "reader.mjs"},
	},
}

// A fog of a hundred lines in another language stores every row once, though it
// is killed on the way, and the gateways let go of what it confirmed.
func TestReaders(t *testing.T) {
	for language, r := range readers {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s := newTestStage(t)
			f := fleet{Gateways: 3, Meters: 5, Quarters: 2, Sites: 2, Start: time.Now().Truncate(15 * time.Minute).Add(-45 * time.Minute)}
			b, err := startBroker(t.Context(), s, "mosquitto", filepath.Join(root, "configs/fog"), f)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			repository, err := filepath.Abs(root)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range r.files {
				if err := copyWith(filepath.Join(root, file), filepath.Join(dir, filepath.Base(file))); err != nil {
					t.Fatal(err)
				}
			}
			inside := func(c *exec.Cmd) { c.Dir = dir }
			args := strings.Split(strings.ReplaceAll(strings.Join(r.setUp, " "), "REPOSITORY", repository), " ")
			if _, err := output(t.Context(), inside, args[0], args[1:]...); err != nil {
				t.Fatal(err)
			}
			certs := filepath.Join(s.dir, "certs")
			host, port, _ := strings.Cut(b.addresses[0], ":")
			start := func() *process {
				p, err := s.start("reader", inside, r.command[0], r.command[1], host, port,
					filepath.Join(certs, "ca.pem"), filepath.Join(certs, "fog.pem"), filepath.Join(certs, "fog.key"))
				if err != nil {
					t.Fatal(err)
				}
				if err := p.says(t.Context(), "connected"); err != nil {
					t.Fatal(err)
				}
				return p
			}
			reader := start()
			c, err := startGateways(s, gatewayOptions{
				Fleet: f, Dir: filepath.Join(s.dir, "stores"), Brokers: b.addresses,
				CA: filepath.Join(certs, "ca.pem"), Certs: certs, Confirm: "fog",
			})
			if err != nil {
				t.Fatal(err)
			}
			half := uint64(f.rows() / 2)
			for _, step := range []struct {
				what string
				done func() bool
			}{
				{"the first quarter hour is confirmed", func() bool { return c.progress().Acked >= half }},
				{"all is confirmed", func() bool { return c.progress().Done }},
			} {
				if err := c.begin(1); err != nil {
					t.Fatal(err)
				}
				if err := c.until(t.Context(), step.what, step.done); err != nil {
					t.Fatal(err, reader.tail())
				}
				reader.kill()
				reader = start()
			}
			compareReadings(t, filepath.Join(dir, "readings.jsonl"), f)
		})
	}
}

// compareReadings holds the lines of a file against what the meters showed.
func compareReadings(t *testing.T, path string, f fleet) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := map[string]string{}
	n := 0
	for in := bufio.NewScanner(file); in.Scan(); n++ {
		var row struct {
			Site, Gateway, Serial, Channel, Value string
			Time                                  int64
		}
		if err := json.Unmarshal(in.Bytes(), &row); err != nil {
			t.Fatalf("%s: %v", in.Text(), err)
		}
		got[fmt.Sprint(row.Site, row.Gateway, row.Serial, row.Channel, row.Time)] = row.Value
	}
	if n != f.rows() || len(got) != n {
		t.Errorf("%d lines for %d values, of %d", n, len(got), f.rows())
	}
	for all := (&shown{fleet: f}); all.Next(); {
		g, q, m, i := all.next[0], all.next[1], all.next[2], all.next[3]
		key := fmt.Sprint(f.site(g), f.gateway(g), f.serial(g, m), channels[i].name, f.stamp(m, i, q))
		want := new(big.Rat).SetInt64(f.mantissa(g, m, i, q))
		for range -channels[i].scale {
			want.Quo(want, big.NewRat(10, 1))
		}
		if value, ok := new(big.Rat).SetString(got[key]); !ok || value.Cmp(want) != 0 {
			t.Fatalf("%s: %q, want %s", key, got[key], want.RatString())
		}
	}
}
