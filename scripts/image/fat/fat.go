// Package fat makes file systems empty where there is no mkfs: from what mkfs.vfat
// wrote when the image was made. That is kept as a seed:
//
//	4 octets   sectors that describe files: reserved ones, tables, root folder
//	4 octets   sectors of the file system
//	per sector of the first kind that is not zero
//	  4 octets   its number
//	  512 octets what is in it
//
// Numbers are little endian.
package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sector is the unit of a file system, in octets.
const Sector = 512

// Make gives the seed of an empty FAT32 file system.
func Make(empty []byte) ([]byte, error) {
	if len(empty) < Sector || len(empty)%Sector != 0 || string(empty[82:87]) != "FAT32" {
		return nil, errors.New("is no FAT32 file system")
	}
	all := uint32(len(empty) / Sector) //nolint:gosec // of a card
	if said := binary.LittleEndian.Uint32(empty[32:]); said != all {
		return nil, fmt.Errorf("says that it has %d sectors, and has %d", said, all)
	}
	// Reserved sectors, the tables, and the first cluster, which is the root folder.
	zero := uint32(binary.LittleEndian.Uint16(empty[14:])) + uint32(empty[16])*binary.LittleEndian.Uint32(empty[36:]) + uint32(empty[13])
	out := binary.LittleEndian.AppendUint32(nil, zero)
	out = binary.LittleEndian.AppendUint32(out, all)
	none := make([]byte, Sector)
	for n := range all {
		s := empty[n*Sector:][:Sector]
		if bytes.Equal(s, none) {
			continue
		}
		if n >= zero {
			return nil, fmt.Errorf("sector %d: is not empty", n)
		}
		out = append(binary.LittleEndian.AppendUint32(out, n), s...)
	}
	return out, nil
}

// Seed is what an empty file system begins with.
type Seed struct {
	zero, total int64
	sectors     map[int64][]byte
}

// Parse reads a seed.
func Parse(b []byte) (*Seed, error) {
	if len(b) < 8 || (len(b)-8)%(4+Sector) != 0 {
		return nil, fmt.Errorf("seed of %d octets", len(b))
	}
	number := func(b []byte) int64 { return int64(binary.LittleEndian.Uint32(b)) }
	s := &Seed{zero: number(b), total: number(b[4:]), sectors: map[int64][]byte{}}
	for b = b[8:]; len(b) > 0; b = b[4+Sector:] {
		n := number(b)
		if n >= s.zero {
			return nil, fmt.Errorf("seed with sector %d of %d", n, s.zero)
		}
		s.sectors[n] = b[4 : 4+Sector]
	}
	if s.sectors[0] == nil || s.zero >= s.total {
		return nil, errors.New("seed without a file system")
	}
	return s, nil
}

// Room gives how many octets of files fit, each rounded up to sectors; the root
// folder grows into it.
func (s *Seed) Room() int64 { return (s.total - s.zero - 16) * Sector }

// Format empties a device, which must not be mounted. What it did is on the device
// when it gives nil. The first sector, which has the name, is the same each time
// and written last.
func (s *Seed) Format(dev string) error {
	f, err := os.OpenFile(dev, os.O_WRONLY|unix.O_EXCL, 0) // exclusively: the kernel refuses a mounted one
	if err != nil {
		return err
	}
	err = s.write(f)
	return errors.Join(err, f.Sync(), f.Close())
}

func (s *Seed) write(f *os.File) error {
	switch size, err := f.Seek(0, io.SeekEnd); {
	case err != nil:
		return err
	case size < s.total*Sector:
		return fmt.Errorf("%s: has %d octets; want %d", f.Name(), size, s.total*Sector)
	}
	const chunk = 128
	buf := make([]byte, chunk*Sector)
	for at := int64(0); at < s.zero; at += chunk {
		part := buf[:min(chunk, s.zero-at)*Sector]
		clear(part)
		for i := range int64(len(part) / Sector) {
			copy(part[i*Sector:], s.sectors[at+i])
		}
		begin := at * Sector
		if at == 0 {
			part, begin = part[Sector:], Sector
		}
		if _, err := f.WriteAt(part, begin); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	_, err := f.WriteAt(s.sectors[0], 0)
	return err
}
