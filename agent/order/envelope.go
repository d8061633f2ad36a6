package order

import (
	"bytes"
	"errors"
	"fmt"

	"aead.dev/minisign"

	"gridgate/internal/meter"
)

// Limits of a document.
const (
	MaxSize       = 512 << 10 // octets, signatures and all
	MaxSignatures = 8
	maxComment    = 512 // octets of a line that holds a comment
)

// Why a document is refused. Errors of this package wrap one of them.
var (
	ErrUnsigned  = errors.New("not signed")
	ErrSignature = errors.New("bad signature")
	ErrRole      = errors.New("signed by the wrong role")
	ErrMalformed = errors.New("not a document")
	ErrTooLarge  = errors.New("too large")
	ErrKind      = errors.New("unknown kind")
	ErrTarget    = errors.New("for another gateway")
	ErrOlder     = errors.New("older than what is here")
	ErrExpired   = errors.New("expired")
	ErrTooEarly  = errors.New("not yet valid")
	ErrAgent     = errors.New("wants a newer agent")
	ErrThreshold = errors.New("too few signatures")
)

// untrustedComment stands before every signature. It is not signed, so it may
// be this one only: an octet that nobody vouches for has no place here.
const untrustedComment = "signature from minisign secret key"

// envelope is a document whose signatures are separated, not verified.
type envelope struct {
	signatures [][]byte // four lines each
	body       []byte
}

// split separates signatures and body.
func split(data []byte) (envelope, error) {
	var e envelope
	if len(data) > MaxSize {
		return e, fmt.Errorf("%w: %d octets, at most %d are taken", ErrTooLarge, len(data), MaxSize)
	}
	for rest := data; ; {
		if after, ok := bytes.CutPrefix(rest, []byte("\n")); ok && len(e.signatures) > 0 {
			e.body = after
			return e, nil
		}
		if len(e.signatures) == MaxSignatures {
			return e, fmt.Errorf("%w: more than %d signatures", ErrTooLarge, MaxSignatures)
		}
		size, err := signature(rest)
		if err != nil {
			if len(e.signatures) == 0 && !bytes.HasPrefix(rest, []byte("untrusted comment: ")) {
				return e, fmt.Errorf("%w: it does not begin with a minisign signature", ErrUnsigned)
			}
			return e, fmt.Errorf("%w: signature %d: %w", ErrSignature, len(e.signatures)+1, err)
		}
		e.signatures = append(e.signatures, rest[:size])
		rest = rest[size:]
	}
}

// signature gives the size of the signature that data begins with: four lines,
// each ended, written in the one way that there is.
func signature(data []byte) (int, error) {
	size := 0
	for range 4 {
		end := bytes.IndexByte(data[size:min(len(data), size+maxComment)], '\n')
		if end < 0 {
			return 0, fmt.Errorf("it wants four lines of at most %d octets, and an empty one after the last signature", maxComment)
		}
		size += end + 1
	}
	var s minisign.Signature
	if err := s.UnmarshalText(data[:size]); err != nil {
		return 0, err
	}
	if s.UntrustedComment != untrustedComment {
		return 0, fmt.Errorf("its first line wants %q, which minisign writes: nobody signs that line", "untrusted comment: "+untrustedComment)
	}
	again, err := s.MarshalText()
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(again, data[:size]) {
		return 0, errors.New("it is not written as minisign writes it")
	}
	return size, nil
}

// Seal puts signatures, as minisign writes them, before a body.
func Seal(body []byte, signatures ...[]byte) []byte {
	sealed := append(bytes.Join(signatures, nil), '\n')
	return append(sealed, body...)
}

// Sign signs a body with one key more: Seal takes what it gives.
func Sign(key minisign.PrivateKey, body []byte, trustedComment string) []byte {
	return minisign.SignWithComments(key, body, trustedComment, untrustedComment)
}

// Unseal separates a document into its signatures and its body without
// verifying anything: for tools that add a signature.
func Unseal(data []byte) (body []byte, signatures [][]byte, err error) {
	e, err := split(data)
	return e.body, e.signatures, err
}

// ShownID gives the id that what may be a command shows in its header; nobody
// may have signed it, so nothing is parsed: a line is looked for, in the first
// octets behind the signatures. Empty where there is none.
func ShownID(data []byte) string {
	const most = 2048
	if e, err := split(data); err == nil {
		data = e.body
	} else if _, after, ok := bytes.Cut(data[:min(len(data), MaxSize)], []byte("\n\n")); ok && bytes.HasPrefix(data, []byte("untrusted comment: ")) {
		data = after
	}
	for line := range bytes.Lines(data[:min(len(data), most)]) {
		if string(line) == "---\n" {
			break
		}
		text, is := bytes.CutPrefix(line, []byte("id:"))
		if !is {
			continue
		}
		id, err := meter.ParseID(string(bytes.Trim(text, " \t\r\n\"'")))
		if err != nil {
			return ""
		}
		return string(id)
	}
	return ""
}
