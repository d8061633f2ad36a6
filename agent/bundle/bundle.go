// Package bundle writes what somebody who is not on site needs to find out what is
// wrong with a gateway: one tar.gz with the state, the configuration, the last
// words of the log. It has no secrets in it: configurations have references only,
// logs tell none, and what the references lead to is struck out wherever it should
// stand all the same.
package bundle

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gridgate/internal/secret"
)

// File is one file of a bundle.
type File struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// struck stands where a secret stood.
const struck = "[secret]"

// shortest is the length from which on a secret can be told from other text.
const shortest = 4

// maxFile bounds a file of a bundle.
const maxFile = 1 << 20

// Write writes files as an archive, without what secrets says.
func Write(w io.Writer, made time.Time, files []File, secrets []secret.Value) error {
	zip := gzip.NewWriter(w)
	strike := striker(secrets)
	for _, f := range files {
		text := strike.Replace(f.Text)
		if len(text) > maxFile {
			text = "…" + text[len(text)-maxFile:]
		}
		if err := writeFile(zip, "gridgate-bundle/"+f.Name, made, text); err != nil {
			return fmt.Errorf("bundle: %s: %w", f.Name, err)
		}
	}
	if _, err := zip.Write(make([]byte, 2*block)); err != nil { // the end of an archive
		return fmt.Errorf("bundle: %w", err)
	}
	if err := zip.Close(); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return nil
}

// striker replaces secrets, also where they are written in hexadecimal digits or
// base 64.
func striker(secrets []secret.Value) *strings.Replacer {
	var pairs []string
	for _, v := range secrets {
		s := bytes.TrimSpace(v.Reveal())
		if len(s) < shortest {
			continue
		}
		for _, form := range []string{string(s), hex.EncodeToString(s), strings.ToUpper(hex.EncodeToString(s)), base64.StdEncoding.EncodeToString(s)} {
			pairs = append(pairs, form, struck)
		}
	}
	return strings.NewReplacer(pairs...)
}

const block = 512

// writeFile writes an entry of the ustar format (POSIX.1-1988, pax(1)):
//
//	offset 0 name · 100 mode · 108 uid · 116 gid · 124 size · 136 time · 148 check
//	sum · 156 type · 257 magic "ustar\0" "00"
//
// with numbers in octal digits, then the content in blocks.
func writeFile(w io.Writer, name string, made time.Time, text string) error {
	var h [block]byte
	if len(name) > 100 {
		return fmt.Errorf("name of %d octets, want at most 100", len(name))
	}
	copy(h[:], name)
	copy(h[100:], "0000600\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(text), max(made.Unix(), 0)))
	copy(h[148:], "        0")
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	if _, err := w.Write(h[:]); err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, (block-len(text)%block)%block))
	return err
}

// Machine gives what the kernel says of itself and of the machine.
func Machine() File {
	var b strings.Builder
	for _, path := range []string{
		"/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/self/mountinfo", "/proc/self/status",
		"/proc/device-tree/model", "/etc/os-release", "/proc/net/route",
	} {
		text, err := readSome(path, 16<<10)
		if err != nil {
			text = err.Error()
		}
		fmt.Fprintf(&b, "== %s\n%s\n", path, strings.TrimRight(text, "\x00\n"))
	}
	return File{"machine.txt", b.String()}
}

func readSome(path string, most int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, most))
	return string(b), err
}
