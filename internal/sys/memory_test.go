package sys

import (
	"os"
	"path/filepath"
	"testing"
)

func TestGroupLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files  map[string]string
		groups string
		want   int64
	}{
		"none":              {nil, "0::/\n", 0},
		"version 2":         {map[string]string{"a/b/memory.max": "65536\n"}, "0::/a/b\n", 65536},
		"no limit":          {map[string]string{"a/memory.max": "max\n"}, "0::/a\n", 0},
		"of what it is in":  {map[string]string{"a/memory.max": "1000\n", "a/b/memory.max": "max\n"}, "0::/a/b\n", 1000},
		"the lowest":        {map[string]string{"a/memory.max": "1000\n", "a/b/memory.max": "2000\n"}, "0::/a/b\n", 1000},
		"version 1":         {map[string]string{"memory/x/memory.limit_in_bytes": "4096\n", "x/memory.max": "1\n"}, "5:cpu:/x\n4:memory:/x\n", 4096},
		"version 1, no one": {map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n"}, "4:memory:/\n", 0},
		"garbage":           {map[string]string{"memory.max": "a lot\n"}, "what\n0::\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for path, text := range c.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := groupLimit(root, c.groups); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
	if _, ram := Resident(); MemoryLimit() <= 0 || MemoryLimit() > ram {
		t.Errorf("%d of %d octets of memory", MemoryLimit(), ram)
	}
}
