package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"gridgate/agent/bundle"
	"gridgate/drivers/address"
)

const noCTTY = syscall.O_NOCTTY | syscall.O_NONBLOCK

func isBusy(err error) bool { return errors.Is(err, syscall.EBUSY) }

const readOnly = 1 // ST_RDONLY of statfs(2)

// disk looks at the file system that the buffer is on: room, wear, whether it takes
// writes, and whose the files are.
func (x *exam) disk(context.Context) {
	const check = "disk"
	if x.Config == nil {
		return
	}
	dir := x.Config.Buffer.Path
	at := dir
	for {
		if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(at, &st); err != nil {
		x.add(Fail, check, "", dir+": "+err.Error())
		return
	}
	free, least := int64(st.Bavail)*int64(st.Bsize), int64(1<<20) //nolint:unconvert // of 32 bits on ARM
	most := x.Config.Buffer.All.Size + x.Config.Buffer.All.Size/4 + 4<<20
	if info, err := os.Stat(filepath.Join(dir, "readings.db")); err == nil {
		most -= info.Size()
	}
	text := fmt.Sprintf("%s: %.0f MB free", dir, float64(free)/1e6)
	switch {
	case st.Flags&readOnly != 0:
		x.add(Fail, check, "", dir+": read-only file system")
	case free < least:
		x.add(Fail, check, "", text+": no space left on device")
	case free < most:
		x.add(Warn, check, Remedy("no space left on device"), fmt.Sprintf("%s, and the buffer may grow by %.0f MB", text, float64(most)/1e6))
	case st.Files > 0 && st.Ffree < 100:
		x.add(Fail, check, "remove small files: there are too many", fmt.Sprintf("%s, but room for %d files only", text, st.Ffree))
	default:
		x.add(OK, check, "", text)
	}
	if syscall.Access(at, 2) != nil && st.Flags&readOnly == 0 && x.Result.Report == nil {
		x.add(Fail, check, "run it as root or as the agent's user; chown -R gridgate: "+dir, dir+": no permission to write")
	}
	x.owners(dir)
	x.wear(dir)
}

// owners finds files that an agent left which ran as another user.
func (x *exam) owners(dir string) {
	var folder syscall.Stat_t
	if syscall.Stat(dir, &folder) != nil {
		return
	}
	entries, _ := os.ReadDir(dir) // what cannot be read was said
	for _, e := range entries {
		var file syscall.Stat_t
		if syscall.Stat(filepath.Join(dir, e.Name()), &file) == nil && file.Uid != folder.Uid {
			x.add(Fail, "files", fmt.Sprintf("chown -R --reference=%s %s, and run gridgate as one user only", dir, dir),
				fmt.Sprintf("%s belongs to user %d, its folder to user %d", filepath.Join(dir, e.Name()), file.Uid, folder.Uid))
			return
		}
	}
}

// wear looks at how worn the flash is (JEDEC JESD84-B51, 7.4: DEVICE_LIFE_TIME_EST in
// tenths of the life, PRE_EOL_INFO), and how much was written to it.
func (x *exam) wear(dir string) {
	const check = "flash"
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) != nil {
		return
	}
	major, minor := (st.Dev>>8)&0xfff, st.Dev&0xff|(st.Dev>>12)&0xfff00
	block, err := filepath.EvalSymlinks(fmt.Sprintf("%s/sys/dev/block/%d:%d", x.Root, major, minor))
	if err != nil {
		return // a file system in memory, or over others
	}
	disk := strings.TrimPrefix(block, x.Root)
	if x.read(disk+"/partition") != "" {
		disk = filepath.Dir(disk)
	}
	written := ""
	if kb, err := strconv.ParseUint(x.read("/sys/fs/ext4/"+filepath.Base(block)+"/lifetime_write_kbytes"), 10, 63); err == nil {
		written = fmt.Sprintf(", %.1f GB written", float64(kb)/1e6)
	}
	worst := int64(0)
	for _, part := range strings.Fields(x.read(disk + "/device/life_time")) {
		if n, err := strconv.ParseInt(part, 0, 16); err == nil {
			worst = max(worst, n)
		}
	}
	eol, _ := strconv.ParseInt(x.read(disk+"/device/pre_eol_info"), 0, 16)
	const do = "plan to exchange the gateway or its card; a longer intake.window wears it less"
	text := fmt.Sprintf("%s: %d to %d %% of its life used%s", filepath.Base(disk), max(worst-1, 0)*10, worst*10, written)
	switch {
	case worst == 0 && written == "":
	case worst == 0:
		x.add(OK, check, "", filepath.Base(disk)+": it does not tell its wear"+written)
	case worst > 10 || eol >= 3:
		x.add(Fail, check, do, text)
	case worst > 8 || eol == 2:
		x.add(Warn, check, do, text)
	default:
		x.add(OK, check, "", text)
	}
}

// keys looks at the files of secrets: there, and nobody else's to read.
func (x *exam) keys(context.Context) {
	const check = "secrets"
	if x.Config == nil {
		return
	}
	seen := map[string]bool{}
	good, bad := 0, 0
	look := func(s address.Secret) {
		name := s.String()
		if s.IsZero() || seen[name] {
			return
		}
		seen[name] = true
		path, isFile := strings.CutPrefix(name, "file:")
		if !isFile && x.Result.Report != nil {
			return // what the agent's variables are only it knows
		}
		if _, err := s.Resolve(x.sources()); err != nil {
			bad++
			x.add(Fail, check, "", err.Error())
			return
		}
		if isFile && !x.private(path) {
			bad++
			return
		}
		good++
	}
	for _, s := range x.references() {
		look(s)
	}
	if k := x.Config.Uplink.Key; k != "" {
		if x.private(k) {
			good++
		} else {
			bad++
		}
	}
	if bad == 0 && good > 0 {
		x.add(OK, check, "", fmt.Sprintf("%d there, and readable by nobody else", good))
	}
	if x.Options.Secrets != nil {
		for _, f := range x.Options.Secrets(x.Config) {
			x.add(f.Level, f.Check, f.Do, f.Text)
		}
	}
}

// private looks whether every user may read a file.
func (x *exam) private(path string) bool {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o007 != 0 {
		x.add(Fail, "secrets", "chmod o= "+path+", and change the secret if others had an account here", path+" may be read by every user")
		return false
	}
	return true
}

// machine looks at kernel and memory.
func (x *exam) machine(context.Context) {
	release := x.read("/proc/sys/kernel/osrelease")
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA == nil && errB == nil && (a < 4 || a == 4 && b < 19) {
		x.add(Warn, "kernel", "a newer system: kernels before 4.19 get no corrections any more", "Linux "+release+" is old")
	} else {
		x.add(OK, "kernel", "", "Linux "+release)
	}
	total, available := x.meminfo("MemTotal:"), x.meminfo("MemAvailable:")
	text := fmt.Sprintf("%d of %d MB available", available>>10, total>>10)
	switch {
	case total == 0:
	case available < 16<<10:
		x.add(Warn, "memory", "see what takes it: top -o %MEM; GOMEMLIMIT bounds gridgate", text)
	default:
		x.add(OK, "memory", "", text)
	}
	if killed := x.killed(); killed != "" {
		x.add(Fail, "memory", "more memory for it, or less beside it; a smaller intake.max_waiting", killed)
	}
}

// meminfo gives a figure of /proc/meminfo, in kB.
func (x *exam) meminfo(name string) int64 {
	_, rest, _ := strings.Cut(x.read("/proc/meminfo"), name)
	text, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseInt(text, 10, 63)
	return n
}

// killed gives the last line of the kernel's log that says that gridgate was killed
// for memory.
func (x *exam) killed() (last string) {
	for _, line := range bundle.KernelLog(x.Root+"/dev/kmsg", 1<<15) {
		if strings.Contains(line, "Killed process") && strings.Contains(line, "(gridgate)") {
			last = line
		}
	}
	return last
}
