package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gridgate/agent/status"
	"gridgate/configs"
)

// root is a machine with files of /proc and /sys of our own.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func say(x *exam, check func()) string {
	var all []string
	x.tell = func(f Finding) { all = append(all, fmt.Sprintf("%s %s %s", f.Level, f.Check, f.Text)) }
	check()
	return strings.Join(all, "; ")
}

func TestWear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	block := fmt.Sprintf("sys/dev/block/%d:%d", (st.Dev>>8)&0xfff, st.Dev&0xff|(st.Dev>>12)&0xfff00)
	const disk = "sys/devices/mmc0/block/mmcblk0"
	for name, c := range map[string]struct{ life, eol, want string }{
		"new":       {"0x01 0x01", "0x01", "ok flash mmcblk0: 0 to 10 % of its life used, 12.3 GB written"},
		"worn":      {"0x02 0x09", "0x01", "warn flash mmcblk0: 80 to 90 % of its life used, 12.3 GB written"},
		"over":      {"0x0b 0x01", "0x01", "fail flash mmcblk0: 100 to 110 % of its life used, 12.3 GB written"},
		"few spare": {"0x03 0x03", "0x02", "warn flash mmcblk0: 20 to 30 % of its life used, 12.3 GB written"},
		"no spare":  {"0x03 0x03", "0x03", "fail flash mmcblk0: 20 to 30 % of its life used, 12.3 GB written"},
		"not told":  {"", "", "ok flash mmcblk0: it does not tell its wear, 12.3 GB written"},
		"garbage":   {"zz \x00", "-", "ok flash mmcblk0: it does not tell its wear, 12.3 GB written"},
	} {
		r := root(t, map[string]string{
			disk + "/device/life_time": c.life + "\n", disk + "/device/pre_eol_info": c.eol + "\n", disk + "/mmcblk0p2/partition": "2\n",
			"sys/fs/ext4/mmcblk0p2/lifetime_write_kbytes": "12345678\n",
		})
		link := filepath.Join(r, block)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(r, disk, "mmcblk0p2"), link); err != nil {
			t.Fatal(err)
		}
		x := &exam{Options: Options{Root: r}}
		if got := say(x, func() { x.wear(dir) }); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ release, memory, kmsg, want string }{
		"well": {"6.1.0-arm", "MemTotal: 250000 kB\nMemAvailable:   120000 kB\n", "", "ok kernel Linux 6.1.0-arm; ok memory 117 of 244 MB available"},
		"old":  {"4.14.9", "MemTotal: 250000 kB\nMemAvailable:   120000 kB\n", "", "warn kernel Linux 4.14.9 is old; ok memory 117 of 244 MB available"},
		"full": {"5.10.1", "MemTotal: 120000 kB\nMemAvailable: 9000 kB\n", "", "ok kernel Linux 5.10.1; warn memory 8 of 117 MB available"},
		"killed": {
			"5.10.1", "MemTotal: 250000 kB\nMemAvailable: 90000 kB\n", "3,1,2,-;Out of memory: Killed process 77 (gridgate) total-vm:1kB\n",
			"ok kernel Linux 5.10.1; ok memory 87 of 244 MB available; fail memory Out of memory: Killed process 77 (gridgate) total-vm:1kB",
		},
		"another killed": {
			"5.10.1", "MemTotal: 250000 kB\nMemAvailable: 90000 kB\n", "3,1,2,-;Out of memory: Killed process 77 (chrome) total-vm:1kB\n",
			"ok kernel Linux 5.10.1; ok memory 87 of 244 MB available",
		},
	} {
		x := &exam{Options: Options{Root: root(t, map[string]string{"proc/sys/kernel/osrelease": c.release + "\n", "proc/meminfo": c.memory, "dev/kmsg": c.kmsg})}}
		if got := say(x, func() { x.machine(t.Context()) }); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
}

// An agent examines itself: it asks nobody, and leaves its lines alone.
func TestOfItself(t *testing.T) {
	t.Parallel()
	r := &status.Report{Version: "v1", Lanes: []status.Lane{{Lane: "instant", Last: 10, Acked: 4, Lost: 3}}, Intake: status.Intake{Error: "no space left on device", Dropped: 2}}
	for i := range 30 {
		r.Meters = append(r.Meters, status.Meter{Meter: fmt.Sprintf("m%d", i), Line: "l", State: "failing", Error: "no answer within 1s"})
	}
	cfg, err := configs.Parse("c", []byte("version: 1\nsite: s\ngateway: g\nbuffer: {path: "+t.TempDir()+"}\nuplink: {broker: \"tcp://127.0.0.1:1\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Version: "v1", Report: r, Effective: func(string) (*configs.Config, string, error) { return cfg, "text", nil },
		Secrets: func(*configs.Config) []Finding {
			return []Finding{{Level: Fail, Check: "store", Text: "open to all", Do: "close it"}}
		},
	}
	told := 0
	result := Run(t.Context(), o, func(Finding) { told++ })
	if told != len(result.Findings) || result.Count(OK)+result.Count(Warn)+result.Count(Fail) != told {
		t.Errorf("%d told, %+v", told, result.Findings)
	}
	all := fmt.Sprint(result.Findings)
	for _, want := range []string{
		"m19 on l is failing, never read", "and 10 more", "readings cannot be stored: no space left on device", "2 rows were lost before they were stored",
		"3 rows were given up", "6 rows wait", "close it", "another configuration than the file's", "connection refused",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("want %q in %s", want, all)
		}
	}
	if strings.Contains(all, "m20 on l") {
		t.Error("all of thirty meters are told")
	}
	names := map[string]bool{}
	for _, f := range result.Files(map[string]string{"log.jsonl": "x"}) {
		names[f.Name] = true
	}
	for _, name := range []string{"version.txt", "doctor.txt", "machine.txt", "config.yaml", "status.json", "log.jsonl"} {
		if !names[name] {
			t.Errorf("no %s in a bundle", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if late := Run(ctx, o, func(Finding) {}); len(late.Findings) > 0 {
		t.Errorf("%+v after the end", late.Findings)
	}
}
