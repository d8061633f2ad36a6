package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a gateway shows, and keeps, is searched for every secret that it was given.
// To have a further output searched, add a line to collectors.

// collector gathers one kind of output; where says where a piece was found.
type collector struct {
	name    string
	collect func(s *guarded) (pieces map[string][]byte)
}

// collectors are gone through while the agent runs, and again once it has stopped.
func collectors() []collector {
	tool := func(args ...string) collector {
		return collector{"gridgate " + strings.Join(args, " "), func(s *guarded) map[string][]byte { return s.tool("", args...) }}
	}
	return []collector{
		{"log at debug level", func(s *guarded) map[string][]byte { return piece("log", []byte(s.agent.Output())) }},
		{"what tools printed", func(s *guarded) map[string][]byte { return piece("tools", s.printed.Bytes()) }},
		{"what the gateway published", (*guarded).published},
		{"control socket", (*guarded).socketAnswers},
		{"command line and environment of the agent", (*guarded).process},
		{"files", (*guarded).files},
		tool("status"), tool("status", "-json"), tool("check"), tool("clock"), tool("version"), tool("counters"),
		tool("config", "effective"), tool("config", "reference"), tool("config", "diff", "gridgate.yaml"),
		tool("buffer", "stat"), tool("buffer", "stat", "-json"), tool("buffer", "dump"), tool("buffer", "dump", "-json"),
		{"gridgate buffer export", (*guarded).export},
		{"page, its API and metrics", (*guarded).page},
		tool("status", "-metrics"), tool("doctor"), tool("doctor", "-json"),
		{"gridgate doctor -bundle", (*guarded).bundle},
		tool("audit", "show"), tool("audit", "show", "-json"), tool("audit", "verify"),
		tool("secret", "list"), tool("secret", "list", "-json"), tool("secret", "recipient"), tool("secret", "recipient", "-json"),
		tool("read"), tool("read", "-json"), // the meters of the configuration, wrong passwords and all
	}
}

func piece(where string, data []byte) map[string][]byte { return map[string][]byte{where: data} }

// plant is a secret, and the places where it was put: "file NAME" is a file of the
// site, "environment" that of the agent.
type plant struct {
	name, text string
	places     []string
}

// forms are the ways in which a secret may be shown: as it is, in hexadecimal
// digits, in base64 wherever it begins, as fmt prints octets, escaped; of what is
// written in hexadecimal digits the same of its octets.
func forms(text string) (all [][]byte) {
	add := func(s string) {
		if len(s) >= 6 { // of a shorter one there would be others by chance
			all = append(all, []byte(s))
		}
	}
	of := func(b []byte) {
		for _, digits := range []string{hex.EncodeToString(b), fmt.Sprintf("% x", b), strings.Trim(fmt.Sprintf("%d", b), "[]")} {
			add(digits)
			add(strings.ToUpper(digits))
		}
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			for shift := range 3 {
				// Of the first and the last group of four a part is of what stands beside.
				s := encoding.EncodeToString(slices.Concat(make([]byte, shift), b, make([]byte, 3)))
				first, last := 4, len(s)-8
				if shift == 0 {
					first = 0
				}
				if last > first {
					add(s[first:last])
				}
			}
		}
	}
	add(text)
	of([]byte(text))
	if quoted, err := json.Marshal(text); err == nil {
		add(strings.Trim(string(quoted), `"`))
	}
	if octets, err := hex.DecodeString(text); err == nil {
		all = append(all, octets)
		add(strings.ToLower(text))
		add(strings.ToUpper(text))
		of(octets)
	}
	return all
}

// search gives where which secrets are found that were not planted there.
func search(plants []plant, pieces map[string][]byte) (found []string) {
	for where, data := range pieces {
		for _, p := range plants {
			if slices.Contains(p.places, where) {
				continue
			}
			for _, form := range forms(p.text) {
				if bytes.Contains(data, form) {
					found = append(found, fmt.Sprintf("%s in %s, as %.12q…", p.name, where, form))
					break
				}
			}
		}
	}
	return found
}

// TestNoSecretIsShown: of twenty secrets, put wherever one can be put, none is
// found in anything that the programs show or keep, but where it was put.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	s := newGuarded(t)
	s.live()
	if len(s.plants) < 20 {
		t.Fatalf("%d secrets are planted", len(s.plants))
	}
	for _, running := range []bool{true, false} {
		if !running {
			if code := s.agent.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		}
		for _, c := range collectors() {
			pieces := c.collect(s)
			size := 0
			for _, p := range pieces {
				size += len(p)
			}
			if size == 0 && running {
				t.Errorf("%s: nothing was collected", c.name)
			}
			for _, f := range search(s.plants, pieces) {
				t.Errorf("%s, running %v: %s", c.name, running, f)
			}
		}
	}
	s.control()
}

// control shows that the search finds: each secret, where it was planted, in the
// files; and in each of its forms in a log.
func (s *guarded) control() {
	s.t.Helper()
	bare := slices.Clone(s.plants)
	files, places := s.files(), 0
	for i := range bare {
		for _, place := range bare[i].places {
			if data, ok := files[place]; ok {
				places++
				only := []plant{{name: bare[i].name, text: bare[i].text}}
				if len(search(only, piece(place, data))) == 0 {
					s.t.Errorf("%s is not found in %s, where it was put", bare[i].name, place)
				}
			}
		}
		for _, form := range forms(bare[i].text) {
			log := slices.Concat([]byte(`{"level":"DEBUG","msg":"`), form, []byte(`"}`))
			if len(search([]plant{{name: "it", text: bare[i].text}}, piece("log", log))) == 0 {
				s.t.Errorf("%s is not found as %.12q", bare[i].name, form)
			}
		}
	}
	if places < 7 {
		s.t.Errorf("%d secrets were looked for in files where they are", places)
	}
}

// socketAnswers asks the control socket for all that it tells.
func (s *guarded) socketAnswers() map[string][]byte {
	all := map[string][]byte{}
	for _, request := range []string{
		`{"verb":"status"}`, `{"verb":"secret","secret":{"do":"identity"}}`, `{"verb":"secret","secret":{"do":"list"}}`,
		`{"verb":"secret","secret":{"do":"get","name":"gmac-ek"}}`, `{"verb":"refusals","refusals":{}}`, `{"verb":"nonsense"}`, `not JSON`,
		`{"verb":"buffer","buffer":{"dir":"` + filepath.Join(s.dir, "buffer") + `"}}`,
	} {
		conn, err := net.Dial("unix", filepath.Join(s.dir, "c"))
		if err != nil {
			continue // it has stopped
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = conn.Write([]byte(request + "\n"))
		var answer bytes.Buffer
		_, _ = answer.ReadFrom(conn)
		_ = conn.Close()
		all["answer to "+request] = answer.Bytes()
	}
	return all
}

// process gives what ps shows of the agent.
func (s *guarded) process() map[string][]byte {
	all := map[string][]byte{}
	for name, where := range map[string]string{"cmdline": "command line", "comm": "name", "status": "status", "environ": "environment", "limits": "limits"} {
		if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.agent.PID(), name)); err == nil { // environ is root's alone
			all[where] = data
		}
	}
	return all
}

// files gives every file of the site.
func (s *guarded) files() map[string][]byte {
	all := map[string][]byte{}
	err := filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(s.dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		all["file "+name] = append(data, name...)
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	return all
}

// page asks the page and its API for everything, with every token and without.
func (s *guarded) page() map[string][]byte {
	all := map[string][]byte{}
	paths := []string{"/", "/api/1/start", "/api/1/overview", "/api/1/lines", "/api/1/meters", "/api/1/alarms", "/api/1/me", "/metrics", "/nonsense"}
	for _, id := range []string{"ok", "gmac", "wrong", "env", "keys", "garbage", "nokey"} {
		paths = append(paths, "/api/1/meters/"+id)
	}
	site := &site{t: s.t}
	for i, token := range append([]string{""}, s.tokens...) {
		for _, path := range paths {
			if code, header, body := site.ask(s.port, token, path); code != 0 {
				all[fmt.Sprintf("answer %d to %s", i, path)] = fmt.Appendf(nil, "%d %v\n%s", code, header, body)
			}
		}
	}
	return all
}

// bundle has one written, and unpacks it.
func (s *guarded) bundle() map[string][]byte {
	s.t.Helper()
	s.exports++
	file := filepath.Join(s.t.TempDir(), fmt.Sprintf("%d.tar.gz", s.exports))
	all := s.tool("", "doctor", "-bundle", file)
	f, err := os.Open(file)
	if err != nil {
		s.t.Errorf("%v: %s", err, all)
		return all
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		s.t.Error(err)
		return all
	}
	files := tar.NewReader(z)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.t.Error(err)
			break
		}
		data, err := io.ReadAll(files)
		if err != nil {
			s.t.Error(err)
		}
		all["bundle: "+h.Name] = data
	}
	if len(all) < 4 {
		s.t.Errorf("the bundle has little in it: %d pieces", len(all))
	}
	return all
}

// export makes an archive, and reads it again.
func (s *guarded) export() map[string][]byte {
	s.exports++
	file := filepath.Join(s.t.TempDir(), fmt.Sprintf("%d.ggex", s.exports))
	all := s.tool("", "buffer", "export", file)
	data, err := os.ReadFile(file)
	if err != nil {
		s.t.Error(err)
	}
	all["archive"] = data
	if !bytes.Contains(all["gridgate buffer export "+file], []byte("signed by ")) {
		s.t.Errorf("the archive is not signed: %s", all)
	}
	return all
}
