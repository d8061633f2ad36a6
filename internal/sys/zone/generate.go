//go:build ignore

// Generate writes zones.bin from the zone data of the Go that runs it.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	if err := generate(filepath.Join(runtime.GOROOT(), "lib", "time", "zoneinfo.zip"), "zones.bin"); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func generate(from, to string) error {
	z, err := zip.OpenReader(from)
	if err != nil {
		return err
	}
	defer z.Close()
	var names, zones []byte
	at := map[string]int{} // of a zone's data: many zones are others by another name
	n := 0
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if _, ok := at[string(data)]; !ok {
			at[string(data)] = len(at)
			zones = append(binary.AppendUvarint(zones, uint64(len(data))), data...)
		}
		names = append(binary.AppendUvarint(names, uint64(len(f.Name))), f.Name...)
		names = binary.AppendUvarint(names, uint64(at[string(data)]))
		n++
	}
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return err
	}
	_, err = w.Write(append(append(binary.AppendUvarint(nil, uint64(n)), names...), zones...))
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}
