package update_test

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/xi2/xz"

	"gridgate/agent/update"
)

func TestUnpack(t *testing.T) {
	t.Parallel()
	program := testdata(t, "program")
	for _, name := range []string{"program.xz", "program-arm.xz", "program-sha256.xz"} {
		var out bytes.Buffer
		if err := update.Unpack(&out, bytes.NewReader(testdata(t, name)), update.PackXZ, int64(len(program))); err != nil || !bytes.Equal(out.Bytes(), program) {
			t.Errorf("%s: %d octets, %v", name, out.Len(), err)
		}
	}
	var out bytes.Buffer
	if err := update.Unpack(&out, bytes.NewReader(program), update.PackNone, int64(len(program))); err != nil || !bytes.Equal(out.Bytes(), program) {
		t.Error(err)
	}
}

func TestUnpackRefuses(t *testing.T) {
	t.Parallel()
	packed, size := testdata(t, "program.xz"), int64(len(testdata(t, "program")))
	flipped := bytes.Clone(packed)
	flipped[5000] ^= 1
	for name, c := range map[string]struct {
		data []byte
		how  update.Pack
		size int64
	}{
		"another size, less": {packed, update.PackXZ, size + 1},
		"another size, more": {packed, update.PackXZ, size - 1},
		"two streams":        {append(bytes.Clone(packed), packed...), update.PackXZ, size},
		"octets behind":      {append(bytes.Clone(packed), "more"...), update.PackXZ, size},
		"no xz":              {testdata(t, "program"), update.PackXZ, size},
		"nothing":            {nil, update.PackXZ, size},
		"a bit flipped":      {flipped, update.PackXZ, size},
		"plain, short":       {packed, update.PackNone, size},
		"plain, long":        {packed, update.PackNone, 100},
	} {
		var out bytes.Buffer
		if err := update.Unpack(&out, bytes.NewReader(c.data), c.how, c.size); !errors.Is(err, update.ErrBroken) || int64(out.Len()) > c.size {
			t.Errorf("%s: %d octets, %v", name, out.Len(), err)
		}
	}
	for n := 0; n < len(packed); n += 1 + n%61 {
		var out bytes.Buffer
		if err := update.Unpack(&out, bytes.NewReader(packed[:n]), update.PackXZ, size); !errors.Is(err, update.ErrBroken) {
			t.Fatalf("cut at %d of %d: %v", n, len(packed), err)
		}
	}
}

// TestDictionary: one that is too large is refused before there is memory for it.
func TestDictionary(t *testing.T) {
	data := testdata(t, "program-dict8.xz")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := update.Unpack(&bytes.Buffer{}, bytes.NewReader(data), update.PackXZ, 49600)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, update.ErrBroken) || !errors.Is(err, xz.ErrMemlimit) || !strings.Contains(err.Error(), "dictionary") {
		t.Error(err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d octets", took)
	}
}

// FuzzUnpack: no more comes out than may, and nothing panics.
func FuzzUnpack(f *testing.F) {
	for _, name := range []string{"program.xz", "program-arm.xz", "program-sha256.xz", "program-dict8.xz"} {
		f.Add(testdata(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		err := update.Unpack(&out, bytes.NewReader(data), update.PackXZ, 100_000)
		if err != nil && !errors.Is(err, update.ErrBroken) || err == nil && out.Len() != 100_000 || out.Len() > 100_000 {
			t.Errorf("%d octets, %v", out.Len(), err)
		}
	})
}
