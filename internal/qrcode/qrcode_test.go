package qrcode

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// foreign has zbarimg read a picture.
func foreign(t *testing.T, picture string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", picture)
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("zbarimg: %v (scripts/setup.sh installs it)", err)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// texts are of many sizes, and so many versions of the code.
func texts() []string {
	all := []string{"x", "gridgate:1 site=north gateway=gw-1", "a<b>&c \"d\""}
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{60, 106, 107, 152, 180, 300, 700} {
		var b strings.Builder
		for range n {
			b.WriteByte("abcdefghijklmnopqrstuvwxyz0123456789 =:-"[r.IntN(40)])
		}
		all = append(all, strings.TrimSpace(b.String()))
	}
	return all
}

// TestSVGIsRead by a decoder that is not ours, of a picture that is not drawn by us.
func TestSVGIsRead(t *testing.T) {
	t.Parallel()
	for _, text := range texts() {
		code, err := Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		svg, picture := filepath.Join(dir, "c.svg"), filepath.Join(dir, "c.png")
		if err := os.WriteFile(svg, []byte(code.SVG(35, "north/gw-1", "<&>")), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "rsvg-convert", "-w", "1200", svg, "-o", picture).CombinedOutput(); err != nil {
			t.Fatalf("rsvg-convert: %v: %s (scripts/setup.sh installs it)", err, out)
		}
		if got := foreign(t, picture); got != text {
			t.Errorf("%q is read as %q", text, got)
		}
	}
}

// TestTerminalIsRead as it stands on a dark terminal.
func TestTerminalIsRead(t *testing.T) {
	t.Parallel()
	for _, text := range texts() {
		code, err := Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		plain := code.Terminal(false)
		coloured := strings.NewReplacer("\x1b[97;40m", "", "\x1b[0m", "").Replace(code.Terminal(true))
		if coloured != plain {
			t.Error("colours change the blocks")
		}
		if got := foreign(t, drawn(t, plain)); got != text {
			t.Errorf("%q is read as %q", text, got)
		}
		if code.Size() < 40 { // a control: a torn one is not read
			if out, err := exec.CommandContext(t.Context(), "zbarimg", "--quiet", "--raw", drawn(t, strings.ReplaceAll(plain, "▀", "▄"))).Output(); err == nil && string(out) == text+"\n" {
				t.Errorf("%q is read where it is not", text)
			}
		}
	}
}

// drawn draws half blocks as a dark terminal does.
func drawn(t *testing.T, blocks string) (path string) {
	t.Helper()
	const scale = 6
	lines := strings.Split(strings.TrimSuffix(blocks, "\n"), "\n")
	width := len([]rune(lines[0]))
	m := image.NewGray(image.Rect(0, 0, width*scale, 2*len(lines)*scale))
	for row, line := range lines {
		if len([]rune(line)) != width {
			t.Fatalf("line %d is not as wide as the first", row)
		}
		for x, r := range []rune(line) {
			for half, light := range []bool{r == '█' || r == '▀', r == '█' || r == '▄'} {
				for i := range scale * scale {
					if light {
						m.SetGray(x*scale+i%scale, (2*row+half)*scale+i/scale, color.Gray{Y: 255})
					}
				}
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "c.png")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTooLong(t *testing.T) {
	t.Parallel()
	if _, err := Encode(strings.Repeat("x", 3000)); err == nil {
		t.Error("3000 octets are taken")
	}
}
