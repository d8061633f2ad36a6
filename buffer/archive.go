package buffer

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"gridgate/internal/meter"
)

// An archive is what a store keeps, in one file that goes from hand to hand.
// Numbers are little endian; the file is
//
//	0  4  magic    "GGEX"
//	4  1  version  1
//	5  3  zero
//	8     blocks
//
// and a block
//
//	 0  1  kind
//	 1  4  length of the content
//	 5  4  length of the content as it follows, deflated (RFC 1951)
//	 9  4  crc      CRC-32C of the octets 0 to 8 and of what follows
//	13     the content, deflated
//
// in this order: one head, the lanes, then chunks and holes, one end, one seal.
// The seal has the SHA-256 of everything before it, and a signature of that
// digest when there was a key to sign with.
const (
	archiveMagic   = "GGEX"
	archiveVersion = 1
	archiveHeader  = 8
	blockHeader    = 13
	// capBlock is the length above which a block is taken for garbage.
	capBlock = capChunkBytes + 1<<16
)

// The kinds of blocks. What a reader does not know it passes over.
const (
	blockHead  = 1 // epoch u64, ms since 1970 i64, site and gateway: each a length u8 and text
	blockLane  = 2 // lane u8, last u64, acknowledged through u64
	blockChunk = 3 // a chunk as the store has it
	blockHole  = 4 // lane u8, reason u8, first u64, last u64, count u64
	blockEnd   = 5 // rows u64, holes u64
	blockSeal  = 6 // SHA-256, then nothing or: 1 for Ed25519, public key, signature of the digest
)

// ArchiveHead says what an archive is of.
type ArchiveHead struct {
	Site, Gateway string // empty when whoever made it did not say
	Epoch         uint64
	Made          int64 // ms since 1970 UTC
	// Acked is the number through which each lane was acknowledged.
	Acked [laneCount]uint64
}

// ArchiveInfo is what an archive was found to be at its end.
type ArchiveInfo struct {
	Head        ArchiveHead
	Rows, Holes uint64
	// Signer is whose signature it carries, nil for none. The signature is
	// right; whether the key is anybody's is for the caller to know.
	Signer ed25519.PublicKey
}

// ErrArchive says that a file is no archive, or damaged or cut short.
var ErrArchive = errors.New("not a whole archive")

// IsArchive says whether a file begins as an archive does.
func IsArchive(b []byte) bool { return bytes.HasPrefix(b, []byte(archiveMagic)) }

// archiveWriter writes blocks.
type archiveWriter struct {
	w    io.Writer
	sum  hash.Hash
	pack *flate.Writer
	buf  bytes.Buffer
	info ArchiveInfo

	times *times // of the boots of the store
}

func newArchiveWriter(w io.Writer) (*archiveWriter, error) {
	pack, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	a := &archiveWriter{w: w, sum: sha256.New(), pack: pack}
	return a, a.write(append([]byte(archiveMagic), archiveVersion, 0, 0, 0))
}

func (a *archiveWriter) write(b []byte) error {
	_, _ = a.sum.Write(b) // a hash takes everything
	_, err := a.w.Write(b)
	return err
}

func (a *archiveWriter) block(kind byte, content []byte) error {
	a.buf.Reset()
	a.pack.Reset(&a.buf)
	_, err := a.pack.Write(content)
	if err = errors.Join(err, a.pack.Close()); err != nil {
		return err
	}
	packed := a.buf.Bytes()
	b := make([]byte, blockHeader, blockHeader+len(packed))
	b[0] = kind
	binary.LittleEndian.PutUint32(b[1:], uint32(len(content)))
	binary.LittleEndian.PutUint32(b[5:], uint32(len(packed)))
	binary.LittleEndian.PutUint32(b[9:], blockSum(b, packed))
	return a.write(append(b, packed...))
}

func blockSum(head, packed []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli(), head[:9]), castagnoli(), packed)
}

func (a *archiveWriter) head(h ArchiveHead) error {
	if len(h.Site) > 255 || len(h.Gateway) > 255 {
		return fmt.Errorf("site or gateway of more than 255 octets")
	}
	b := binary.LittleEndian.AppendUint64(nil, h.Epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Made))
	b = append(append(b, byte(len(h.Site))), h.Site...)
	b = append(append(b, byte(len(h.Gateway))), h.Gateway...)
	return a.block(blockHead, b)
}

func (a *archiveWriter) lane(lane meter.Lane, last, acked uint64) error {
	b := binary.LittleEndian.AppendUint64([]byte{byte(lane)}, last)
	return a.block(blockLane, binary.LittleEndian.AppendUint64(b, acked))
}

func (a *archiveWriter) hole(lane meter.Lane, h meter.Hole) error {
	b := []byte{byte(lane), byte(h.Reason)}
	for _, n := range []uint64{h.First, h.Last, h.Count} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	a.info.Holes++
	return a.block(blockHole, b)
}

// seal ends the archive.
func (a *archiveWriter) seal(key crypto.Signer) error {
	b := binary.LittleEndian.AppendUint64(nil, a.info.Rows)
	if err := a.block(blockEnd, binary.LittleEndian.AppendUint64(b, a.info.Holes)); err != nil {
		return err
	}
	digest := a.sum.Sum(nil)
	if key != nil {
		public, ok := key.Public().(ed25519.PublicKey)
		if !ok {
			return fmt.Errorf("sign: want an Ed25519 key, have %T", key.Public())
		}
		signature, err := key.Sign(nil, digest, crypto.Hash(0))
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		digest = append(append(append(digest, 1), public...), signature...)
		a.info.Signer = public
	}
	return a.block(blockSeal, digest)
}

// archiveReader reads blocks.
type archiveReader struct {
	r      io.Reader
	sum    hash.Hash
	before []byte // digest of all before the block that was read last
}

func openArchive(r io.Reader) (*archiveReader, error) {
	a := &archiveReader{r: r, sum: sha256.New()}
	head := make([]byte, archiveHeader)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:4]) != archiveMagic {
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrArchive, archiveMagic)
	}
	if head[4] != archiveVersion {
		return nil, fmt.Errorf("%w: version %d, this program reads %d", ErrArchive, head[4], archiveVersion)
	}
	_, _ = a.sum.Write(head)
	return a, nil
}

func (a *archiveReader) next() (kind byte, content []byte, err error) {
	head := make([]byte, blockHeader)
	if _, err := io.ReadFull(a.r, head); err != nil {
		return 0, nil, fmt.Errorf("%w: cut short: %w", ErrArchive, err)
	}
	n, packed := binary.LittleEndian.Uint32(head[1:]), binary.LittleEndian.Uint32(head[5:])
	if n > capBlock || packed > capBlock {
		return 0, nil, fmt.Errorf("%w: a block of %d octets", ErrArchive, max(n, packed))
	}
	b := make([]byte, packed)
	if _, err := io.ReadFull(a.r, b); err != nil {
		return 0, nil, fmt.Errorf("%w: cut short: %w", ErrArchive, err)
	}
	if binary.LittleEndian.Uint32(head[9:]) != blockSum(head, b) {
		return 0, nil, fmt.Errorf("%w: a block's checksum is wrong", ErrArchive)
	}
	a.before = a.sum.Sum(nil)
	_, _ = a.sum.Write(head)
	_, _ = a.sum.Write(b)
	content = make([]byte, n)
	inflate := flate.NewReader(bytes.NewReader(b))
	if _, err := io.ReadFull(inflate, content); err != nil && !(n == 0 && errors.Is(err, io.EOF)) {
		return 0, nil, fmt.Errorf("%w: a block that does not inflate: %w", ErrArchive, err)
	}
	return head[0], content, nil
}

// ReadArchive calls do for every chunk and every hole of an archive, each as a
// span. What a damaged or shortened archive still has was given to do before
// the error, which wraps ErrArchive, is returned; an error of do ends it.
func ReadArchive(r io.Reader, do func(h *ArchiveHead, span meter.Span) error) (info ArchiveInfo, err error) {
	a, err := openArchive(r)
	if err != nil {
		return info, err
	}
	ended := false
	for {
		kind, b, err := a.next()
		if err != nil {
			return info, err
		}
		switch kind {
		case blockHead:
			err = info.Head.parse(b)
		case blockLane:
			if len(b) != 17 || !meter.Lane(b[0]).Valid() {
				err = errBlock
				break
			}
			info.Head.Acked[b[0]] = binary.LittleEndian.Uint64(b[9:])
		case blockChunk, blockHole:
			var span meter.Span
			if span, err = spanOf(kind, b); err == nil {
				info.Rows += uint64(len(span.Rows))
				info.Holes += uint64(len(span.Holes))
				if err := do(&info.Head, span); err != nil {
					return info, err
				}
			}
		case blockEnd:
			ended = len(b) == 16 && binary.LittleEndian.Uint64(b) == info.Rows && binary.LittleEndian.Uint64(b[8:]) == info.Holes
		case blockSeal:
			if !ended {
				return info, fmt.Errorf("%w: something is missing from it", ErrArchive)
			}
			info.Signer, err = checkSeal(b, a.before)
			return info, err
		}
		if err != nil {
			return info, fmt.Errorf("%w: %w", ErrArchive, err)
		}
	}
}

var errBlock = errors.New("a block's content is not what its kind says")

func (h *ArchiveHead) parse(b []byte) error {
	if len(b) < 17 {
		return errBlock
	}
	h.Epoch, h.Made = binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))
	b = b[16:]
	for _, s := range []*string{&h.Site, &h.Gateway} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return errBlock
		}
		*s, b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	return nil
}

// spanOf gives the chunk or hole of a block.
func spanOf(kind byte, b []byte) (meter.Span, error) {
	if kind == blockChunk {
		info, rows, err := parseChunk(b)
		if err != nil {
			return meter.Span{}, err
		}
		runs := []meter.Run{{First: info.first, Count: uint64(info.rows)}}
		return meter.Span{Lane: info.lane, Rows: rows, Runs: runs, Last: info.last()}, nil
	}
	if len(b) != 26 || !meter.Lane(b[0]).Valid() {
		return meter.Span{}, errBlock
	}
	le := binary.LittleEndian
	h := meter.Hole{First: le.Uint64(b[2:]), Last: le.Uint64(b[10:]), Reason: meter.Reason(b[1]), Count: le.Uint64(b[18:])}
	if h.First == 0 || h.Last < h.First {
		return meter.Span{}, errBlock
	}
	return meter.Span{Lane: meter.Lane(b[0]), Holes: []meter.Hole{h}, Last: h.Last}, nil
}

// checkSeal compares a seal with the digest of what was read.
func checkSeal(b, digest []byte) (ed25519.PublicKey, error) {
	const n = sha256.Size
	if len(b) < n || !bytes.Equal(b[:n], digest) {
		return nil, fmt.Errorf("%w: its digest is wrong", ErrArchive)
	}
	if b = b[n:]; len(b) == 0 {
		return nil, nil
	}
	if len(b) != 1+ed25519.PublicKeySize+ed25519.SignatureSize || b[0] != 1 {
		return nil, fmt.Errorf("%w: a signature of a kind that this program does not know", ErrArchive)
	}
	key := ed25519.PublicKey(b[1 : 1+ed25519.PublicKeySize])
	if !ed25519.Verify(key, digest, b[1+ed25519.PublicKeySize:]) {
		return nil, fmt.Errorf("%w: its signature is wrong", ErrArchive)
	}
	return key, nil
}
