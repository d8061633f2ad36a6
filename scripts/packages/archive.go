package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
)

// archive writes gridgate-VERSION-ARCH.tar.gz, for systems with neither packager:
// what is installed, and install.sh.
func (j job) archive(a arch) error {
	top := "gridgate-" + j.version + "-" + a.bin
	contents := []struct {
		src, name string
		mode      int64
	}{
		{j.script("install.sh"), "install.sh", 0o755},
		{j.binary(a), "gridgate", 0o755},
		{j.source("configs/package/gridgate.yaml"), "gridgate.yaml", 0o644},
		{j.source("configs/systemd/gridgate.service"), "gridgate.service", 0o644},
		{j.made("gridgate.bash"), "gridgate.bash", 0o644},
		{j.made("gridgate.1.gz"), "gridgate.1.gz", 0o644},
		{j.source("LICENSE"), "LICENSE", 0o644},
	}
	return j.write(top+".tar.gz", func(f *os.File) error {
		z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
		if err != nil {
			return err
		}
		t := tar.NewWriter(z)
		for _, c := range contents {
			if err := j.add(t, c.src, top+"/"+c.name, c.mode); err != nil {
				return err
			}
		}
		return errors.Join(t.Close(), z.Close())
	})
}

func (j job) add(t *tar.Writer, src, name string, mode int64) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	err = t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: stat.Size(), ModTime: j.date, Uname: "root", Gname: "root", Format: tar.FormatUSTAR})
	if err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
