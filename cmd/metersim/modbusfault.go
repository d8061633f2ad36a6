package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// modbusFaults lists what can go wrong, by name.
func modbusFaults() []string {
	return []string{"late", "split", "noise", "foreign", "exception", "echo", "silence", "garbage"}
}

func faultsHelp() string {
	return `faults, comma separated, taken in turn:
late       the answer comes when the next question does, before its answer
split      the answer comes in two parts, 30 ms apart
noise      random bytes before and behind the answer
foreign    another unit's answer comes first (TCP: another transaction's)
exception  "device failure" instead of the answer, in two parts
echo       the question comes back before the answer
silence    no answer
garbage    the answer with a byte changed (TCP: of its header)`
}

// faults takes turns at spoiling answers. It is safe for concurrent use.
type faults struct {
	kinds []string
	every int // requests to one fault

	mu    sync.Mutex
	count int
	rng   *rand.Rand
}

func parseFaults(list string, every int) (*faults, error) {
	f := &faults{every: every, rng: rand.New(rand.NewPCG(1, 2))} // noise that comes out alike each time
	if every < 1 {
		return nil, fmt.Errorf("-every %d: want 1 or more", every)
	}
	for kind := range strings.SplitSeq(list, ",") {
		switch {
		case kind == "":
		case slices.Contains(modbusFaults(), kind):
			f.kinds = append(f.kinds, kind)
		default:
			return nil, fmt.Errorf("no fault %q; want some of %s", kind, strings.Join(modbusFaults(), ","))
		}
	}
	return f, nil
}

// next gives the fault of the request that came now, "" for none.
func (f *faults) next() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if len(f.kinds) == 0 || f.count%f.every != 0 {
		return ""
	}
	return f.kinds[f.count/f.every%len(f.kinds)]
}

func (f *faults) noise() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := make([]byte, 1+f.rng.IntN(6))
	for i := range b {
		b[i] = byte(f.rng.Uint32())
	}
	return b
}

// part is bytes to send, and the pause before them.
type part struct {
	pause time.Duration
	bytes []byte
}

// splitPause is longer than the silence between frames at any usual rate.
const splitPause = 30 * time.Millisecond

// framing is what RTU and TCP do differently.
type framing struct {
	refusal func(request []byte) []byte // "device failure" in answer to request
	foreign func(answer []byte) []byte  // the same, of somebody else
	// weak is the byte whose change a client can see: any with a CRC, the
	// protocol's number without.
	weak int
}

// spoil makes of an answer what the fault has be sent. held is an answer kept
// back by a late fault earlier; the second result is the one kept back now.
func (f *faults) spoil(kind string, request, answer, held []byte, fr framing) (parts []part, keep []byte) {
	if held != nil {
		parts = append(parts, part{bytes: held})
	}
	add := func(pause time.Duration, b []byte) { parts = append(parts, part{pause, b}) }
	switch kind {
	case "late":
		return parts, answer
	case "silence":
	case "split":
		at := len(answer) / 2
		add(0, answer[:at])
		add(splitPause, answer[at:])
	case "noise":
		add(0, slices.Concat(f.noise(), answer, f.noise()))
	case "foreign":
		add(0, fr.foreign(answer))
		add(0, answer)
	case "exception":
		refusal := fr.refusal(request)
		add(0, refusal[:2])
		add(splitPause, refusal[2:])
	case "echo":
		add(0, request)
		add(0, answer)
	case "garbage":
		bad := slices.Clone(answer)
		bad[fr.weak] ^= 0x5A
		add(0, bad)
	default:
		add(0, answer)
	}
	return parts, nil
}
