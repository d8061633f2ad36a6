package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// debian fetches packages of Debian's for another architecture than this
// machine's, with a state of apt's own: the machine's is left alone.
type debian struct {
	arch  string
	cache string // folder that is kept from build to build
}

func (d debian) dir() string  { return filepath.Join(d.cache, d.arch) }
func (d debian) root() string { return filepath.Join(d.dir(), "root") }

func (d debian) apt(args ...string) (string, error) {
	dir := d.dir()
	options := []string{"-q"}
	for _, o := range []string{
		"APT::Architecture=" + d.arch, "APT::Architectures=" + d.arch, "Dir::State=" + dir + "/state", "Dir::State::status=" + dir + "/status",
		"Dir::Cache=" + dir + "/cache", "Dir::Etc::sourcelist=" + dir + "/sources.list", "Dir::Etc::sourceparts=/dev/null", "APT::Sandbox::User=",
	} {
		options = append(options, "-o", o)
	}
	c := exec.Command("apt-get", append(options, args...)...) //nolint:gosec // fixed words and names of packages
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// prepare reads Debian's index, once a build.
func (d debian) prepare() error {
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(d.dir(), sub), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir(), "status"), nil, 0o644); err != nil {
		return err
	}
	mirror, err := ownMirror()
	if err != nil {
		return err
	}
	source := "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + mirror + " " + suite + " main\n"
	if err := os.WriteFile(filepath.Join(d.dir(), "sources.list"), []byte(source), 0o644); err != nil {
		return err
	}
	_, err = d.apt("update")
	return err
}

// suite is the Debian that images are made of.
const suite = "bookworm"

// ownMirror gives the mirror that this machine has Debian from: it has the other
// architectures too.
func ownMirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == suite && f[2] == "main" {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("this machine's apt has no %s main: images are made on that Debian", suite)
}

// unpack gives the folder that a package was unpacked into, fetching it where it
// was not before.
func (d debian) unpack(pkg string) (string, error) {
	root := filepath.Join(d.root(), pkg)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if _, err := os.Stat(filepath.Join(d.dir(), "sources.list")); err != nil {
		if err := d.prepare(); err != nil {
			return "", err
		}
	}
	if _, err := d.apt("download", pkg); err != nil {
		return "", fmt.Errorf("%w\nDebian may have replaced it: docs/boards.md says what to do", err)
	}
	found, err := filepath.Glob(filepath.Join(d.dir(), pkg+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s: %d packages in %s", pkg, len(found), d.dir())
	}
	part := root + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := os.MkdirAll(part, 0o755); err != nil {
		return "", err
	}
	if err := run("dpkg-deb", "-x", found[0], part); err != nil {
		return "", err
	}
	return root, os.Rename(part, root)
}

// run runs a tool of this machine's.
func run(name string, args ...string) error {
	c := exec.Command(name, args...) //nolint:gosec // tools by name, files that we made
	c.Env = append(os.Environ(), "TZ=UTC", "MTOOLS_SKIP_CHECK=1", "LC_ALL=C", "SOURCE_DATE_EPOCH="+epoch, "E2FSPROGS_FAKE_TIME="+epoch)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
