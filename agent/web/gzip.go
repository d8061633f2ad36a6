package web

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// gzipHeader is that of a gzip file without a name (RFC 1952, 2.3). What it takes
// beside flate, which batches are packed with, is too little to link compress/gzip
// for.
const gzipHeader = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// pack compresses b; nothing where it cannot.
func pack(b []byte) []byte {
	var out bytes.Buffer
	out.WriteString(gzipHeader)
	z, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil
	}
	if _, err = z.Write(b); err != nil || z.Close() != nil {
		return nil
	}
	tail := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b))
	out.Write(binary.LittleEndian.AppendUint32(tail, uint32(len(b))))
	return out.Bytes()
}

// unpack undoes pack, and what gzip does without a name, but for the checksum.
func unpack(b []byte) ([]byte, error) {
	return io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b[min(len(gzipHeader), len(b)):])), 1<<20))
}
