package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
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
