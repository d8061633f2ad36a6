package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
)

// blockSize is the unit of a block map.
const blockSize = 4096

// blockMap writes which blocks of an image have to be written, as bmap files of
// version 2.0 say it (the format of Yocto's bmaptool): the rest of a card may hold
// anything. That a block is zero does not mean that it may: what lies before the
// last block with something in it, in each file system, was put there.
func (b *build) blockMap() error {
	f, err := os.Open(b.out)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	blocks := stat.Size() / blockSize
	var ranges strings.Builder
	mapped := int64(0)
	for _, r := range b.regions(blocks) {
		last, err := lastUsed(f, r)
		if err != nil {
			return err
		}
		// In pieces, so that who writes them can say how far it is.
		for first := r.first; first <= last; first += piece {
			end := min(first+piece-1, last)
			sum, err := sumOf(f, first, end)
			if err != nil {
				return err
			}
			fmt.Fprintf(&ranges, "        <Range chksum=\"%x\"> %d-%d </Range>\n", sum, first, end)
			mapped += end - first + 1
		}
	}
	text := fmt.Sprintf(`<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize> %d </ImageSize>
    <BlockSize> %d </BlockSize>
    <BlocksCount> %d </BlocksCount>
    <MappedBlocksCount> %d </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> %s </BmapFileChecksum>
    <BlockMap>
%s    </BlockMap>
</bmap>
`, stat.Size(), blockSize, blocks, mapped, strings.Repeat("0", 64), ranges.String())
	// The sum of the file is made with zeros in its place.
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	text = strings.Replace(text, strings.Repeat("0", 64), sum, 1)
	return os.WriteFile(b.out+".bmap", []byte(text), 0o644) //nolint:gosec // for everybody
}

const piece = 4 * mib / blockSize

// region is a part of the image whose end may be left out when nothing is in it.
type region struct {
	first, last int64
	whole       bool // it may not: partition tables and ext4 need their zeros
}

func (b *build) regions(blocks int64) []region {
	at := int64(gap * mib / blockSize)
	all := []region{{first: 0, last: at - 1, whole: true}}
	sizes := []int{bootSize, slotSize, slotSize, b.data}
	for i, size := range sizes {
		next := at + int64(size*mib/blockSize)
		all = append(all, region{first: at, last: next - 1, whole: i == len(sizes)-1})
		at = next
	}
	return append(all, region{first: at, last: blocks - 1}) // the second copy of a GPT
}

// lastUsed gives the last block of a region with something in it, or the one
// before the first.
func lastUsed(f io.ReaderAt, r region) (int64, error) {
	if r.whole {
		return r.last, nil
	}
	var block, zero [blockSize]byte
	for i := r.last; i >= r.first; i-- {
		if _, err := f.ReadAt(block[:], i*blockSize); err != nil {
			return 0, err
		}
		if !bytes.Equal(block[:], zero[:]) {
			return i, nil
		}
	}
	return r.first - 1, nil
}

func sumOf(f io.ReaderAt, first, last int64) ([]byte, error) {
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(f, first*blockSize, (last-first+1)*blockSize))
	return h.Sum(nil), err
}
