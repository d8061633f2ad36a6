package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// iec21Faults lists what can go wrong, by name.
func iec21Faults() []string { return []string{"late", "noise", "drop", "bcc", "cut", "parity", "echo"} }

func iec21FaultsHelp() string {
	return `faults, comma separated, taken in turn:
late    a message comes 4 s late
noise   random octets before a message
drop    a message does not come
bcc     a message has another check character
cut     a message breaks off in its middle
parity  an octet in a message has the wrong parity
echo    all that is sent to the meters comes back first`
}

// iec21Fault takes turns at spoiling messages. It is safe for concurrent use.
type iec21Fault struct {
	kinds []string
	every int
	echo  bool

	mu    sync.Mutex
	count int
}

func parseIEC21Faults(list string, every int) (*iec21Fault, error) {
	f := &iec21Fault{every: every}
	if every < 1 {
		return nil, fmt.Errorf("-every %d: want 1 or more", every)
	}
	for kind := range strings.SplitSeq(list, ",") {
		switch {
		case kind == "":
		case kind == "echo":
			f.echo = true
		case slices.Contains(iec21Faults(), kind):
			f.kinds = append(f.kinds, kind)
		default:
			return nil, fmt.Errorf("no fault %q; want some of %s", kind, strings.Join(iec21Faults(), ","))
		}
	}
	return f, nil
}

// next gives the fault of the message that goes now, "" for none.
func (f *iec21Fault) next() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if len(f.kinds) == 0 || f.count%f.every != 0 {
		return ""
	}
	return f.kinds[f.count/f.every%len(f.kinds)]
}

// spoil gives what is sent in place of a message, and the pause before it.
func (f *iec21Fault) spoil(message []byte) ([]byte, time.Duration) {
	const behind = 4 * time.Second
	bad := slices.Clone(message)
	switch f.next() {
	case "late":
		return message, behind
	case "noise":
		return append(noise7(), message...), 0
	case "drop":
		return nil, 0
	case "bcc":
		bad[len(bad)-1] ^= 0x11
	case "cut":
		bad = bad[:len(bad)/2]
	case "parity":
		// The line shows the parity from here on, and one is wrong.
		for i, c := range bad {
			bad[i] = evenParity(c)
		}
		bad[len(bad)/2] ^= 0x80
	}
	return bad, 0
}

// noise7 is octets that are no control characters.
func noise7() []byte {
	b := noise()
	for i := range b {
		b[i] = b[i]&0x1F | 0x60
	}
	return b
}

func evenParity(c byte) byte {
	c &= 0x7F
	folded := c ^ c>>4
	folded ^= folded >> 2
	folded ^= folded >> 1
	return c | folded<<7
}
