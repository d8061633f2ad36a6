package update_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gridgate/agent/update"
	"gridgate/internal/mqtt"
)

// broker counts what MQTT says for what it gives.
type broker struct {
	*pile
	octets, messages int
}

func (b *broker) Fetch(ctx context.Context, wants []update.Want, take func(w update.Want, data []byte)) error {
	return b.pile.Fetch(ctx, wants, func(w update.Want, data []byte) {
		topic := len(mqtt.PartOfFirmware("a-site-whose-name-is-32-letters-", [16]byte(w.Sum[:16])))
		const subscribe, acknowledged, publish, received, unsubscribe, gone = 2 + 2 + 2 + 1, 5, 4 + 2 + 2, 4, 2 + 2 + 2, 4
		b.octets += subscribe + topic + acknowledged + publish + topic + len(data) + received + unsubscribe + topic + gone
		b.messages++
		take(w, data)
	})
}

// TestProgramAlone: an update that changes nothing but gridgate for ARMv7 moves
// at most 4 MB, with all that MQTT says for it.
func TestProgramAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gridgate")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-tags", "nethttpomithttp2", // as scripts/build.sh does
		"-gcflags=all=-l -d=noopendefer=1,variablemakethreshold=0,maxshapelen=30", "-ldflags", "-s -w -buildid= -R 4096", "-o", path, "gridgate/cmd/gridgate")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm", "GOARM=7", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kernel, initrd := noise(5_000_000, 1), noise(6_000_000, 2)
	running := slot{"gridgate": noise(1_000_000, 3), "vmlinuz": kernel, "initrd.zst": initrd}
	b := &broker{pile: newPile()}
	files := []update.File{
		b.add(t, "gridgate", program, debianXZ(t, program, "--lzma2=preset=6,dict=4MiB"), update.PackXZ, 16<<10),
		b.add(t, "vmlinuz", kernel, kernel, update.PackNone, 16<<10),
		b.add(t, "initrd.zst", initrd, initrd, update.PackNone, 16<<10),
	}
	j := begin(t, openStore(t, t.TempDir()), files, running)
	if err := j.Fetch(t.Context(), b, update.Options{}); err != nil {
		t.Fatal(err)
	}
	staged, err := j.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkStaged(t, staged, map[string][]byte{"gridgate": program, "vmlinuz": kernel, "initrd.zst": initrd})
	t.Logf("%d octets packed to %d, %d messages, %d octets over MQTT", len(program), files[0].Packed, b.messages, b.octets)
	if b.octets > 4_000_000 || b.octets < 1_000_000 {
		t.Errorf("%d octets", b.octets)
	}
}
