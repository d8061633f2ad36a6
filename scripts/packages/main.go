// Command packages makes what gridgate is installed from: a Debian package, one
// for OpenWrt, and an archive with an install script, for each architecture.
//
//	packages -version 0.0.0+20261122 -date 1795362000 -in bin -out dist
//
// The same input gives the same bytes. A module of its own: what nfpm brings
// along must not come near the firmware's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/ipk"
)

// arch is one architecture, as the three worlds call it.
type arch struct {
	bin  string // folder below -in, and in the archive's name
	deb  string
	ipk  string // OpenWrt names the processor
	text string
}

func arches() []arch {
	return []arch{
		{bin: "armv7", deb: "armhf", ipk: "arm_cortex-a7_neon-vfpv4", text: "ARMv7"},
		{bin: "arm64", deb: "arm64", ipk: "aarch64_generic", text: "arm64"},
		{bin: "amd64", deb: "amd64", ipk: "x86_64", text: "amd64"},
	}
}

// job is what to make packages of.
type job struct {
	version string
	date    time.Time
	in, out string
	top     string // of the source tree
	shared  string // folder of the files that are generated, alike for all
}

func main() {
	var j job
	flag.StringVar(&j.version, "version", "", "version, as Debian takes it: begins with a digit")
	date := flag.Int64("date", 0, "time of all files, in `SECONDS` since 1970")
	flag.StringVar(&j.in, "in", "bin", "`DIR` with ARCH/gridgate")
	flag.StringVar(&j.shared, "shared", "bin/shared", "`DIR` with gridgate.bash and gridgate.1")
	flag.StringVar(&j.top, "top", ".", "`DIR` of the source tree")
	flag.StringVar(&j.out, "out", "dist", "`DIR` to write to")
	flag.Parse()
	j.date = time.Unix(*date, 0).UTC()
	if err := j.run(); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

func (j job) run() error {
	if j.version == "" || j.version[0] < '0' || j.version[0] > '9' {
		return fmt.Errorf("-version %q: has to begin with a digit", j.version)
	}
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return err
	}
	for _, a := range arches() {
		if err := j.pack("deb", j.debian(a)); err != nil {
			return err
		}
		if err := j.pack("ipk", j.openwrt(a)); err != nil {
			return err
		}
		if err := j.archive(a); err != nil {
			return err
		}
	}
	return nil
}

func (j job) info(a arch) *nfpm.Info {
	return &nfpm.Info{
		Name: "gridgate", Version: j.version, VersionSchema: "none", Platform: "linux", MTime: j.date,
		Section: "net", Priority: "optional", License: "Apache-2.0",
		Maintainer: "The gridgate developers <gridgate@example.invalid>",
		Description: "edge agent for smart-meter gateways\n" +
			"Polls electricity meters (DLMS/COSEM, Modbus, IEC 62056-21, power line), keeps\n" +
			"every reading on flash until the fog has it, and hands it over by MQTT.",
		Overridables: nfpm.Overridables{Umask: 0o022},
	}
}

// file is one to install.
func (j job) file(src, dst string, mode os.FileMode) *files.Content {
	return &files.Content{Source: src, Destination: dst, FileInfo: &files.ContentFileInfo{Mode: mode, MTime: j.date, Owner: "root", Group: "root"}}
}

// kept is one that belongs to the administrator once it is installed.
func (j job) kept(src, dst string) *files.Content {
	f := j.file(src, dst, 0o640)
	f.Type = files.TypeConfigNoReplace
	return f
}

func (j job) binary(a arch) string   { return filepath.Join(j.in, a.bin, "gridgate") }
func (j job) source(p string) string { return filepath.Join(j.top, p) }
func (j job) script(p string) string { return j.source(filepath.Join("scripts/packages/files", p)) }
func (j job) made(p string) string   { return filepath.Join(j.shared, p) }

func (j job) debian(a arch) *nfpm.Info {
	i := j.info(a)
	i.Arch = a.deb
	i.Deb.Compression = "xz"
	i.Depends = []string{"passwd"}
	i.Recommends = []string{"ca-certificates"}
	i.Contents = files.Contents{
		j.file(j.binary(a), "/usr/bin/gridgate", 0o755),
		j.kept(j.source("configs/package/gridgate.yaml"), "/etc/gridgate/gridgate.yaml"),
		j.file(j.source("configs/systemd/gridgate.service"), "/lib/systemd/system/gridgate.service", 0o644),
		j.file(j.source("configs/systemd/gridgate.sysusers.conf"), "/usr/lib/sysusers.d/gridgate.conf", 0o644),
		j.file(j.made("gridgate.bash"), "/usr/share/bash-completion/completions/gridgate", 0o644),
		j.file(j.made("gridgate.1.gz"), "/usr/share/man/man1/gridgate.1.gz", 0o644),
		j.file(j.source("LICENSE"), "/usr/share/doc/gridgate/copyright", 0o644),
	}
	i.Scripts = nfpm.Scripts{PostInstall: j.script("postinst"), PreRemove: j.script("prerm"), PostRemove: j.script("postrm")}
	return i
}

// openwrt leaves out what no router has room for: man page and completion.
func (j job) openwrt(a arch) *nfpm.Info {
	i := j.info(a)
	i.Arch = a.ipk
	i.Recommends = []string{"ca-bundle"}
	i.Contents = files.Contents{
		j.file(j.binary(a), "/usr/bin/gridgate", 0o755),
		j.kept(j.source("configs/package/gridgate.yaml"), "/etc/gridgate/gridgate.yaml"),
		j.file(j.script("gridgate.init"), "/etc/init.d/gridgate", 0o755),
	}
	i.Scripts = nfpm.Scripts{PostInstall: j.script("ipk-postinst"), PreRemove: j.script("ipk-prerm")}
	return i
}

// pack writes one package, whole or not at all.
func (j job) pack(format string, i *nfpm.Info) error {
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	if err := nfpm.PrepareForPackager(i, format); err != nil {
		return fmt.Errorf("%s for %s: %w", format, i.Arch, err)
	}
	name := packager.ConventionalFileName(i)
	return j.write(name, func(f *os.File) error { return packager.Package(i, f) })
}

func (j job) write(name string, fill func(*os.File) error) error {
	f, err := os.CreateTemp(j.out, ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone where it was renamed
	err = fill(f)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintln(os.Stdout, filepath.Join(j.out, name))
	return os.Rename(f.Name(), filepath.Join(j.out, name))
}
