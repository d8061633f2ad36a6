package dlms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
)

// datagrams is a Transport that loses APDUs, and has answers come late, twice
// and in another order. It is for use in a bubble.
type datagrams struct {
	session *dlmstest.Session
	fates   *rand.Rand
	in      chan []byte
	sent    [][]byte
	mu      sync.Mutex // of fates and lose: timers use them too
	// lose, if not nil, loses the answers to what it is true of, and nothing else.
	lose func(request []byte) bool
}

const (
	latency  = 100 * time.Millisecond
	patience = time.Second
)

// travel has an answer arrive, or not.
func (d *datagrams) travel(arrive func()) {
	copies := 1
	switch d.fate() {
	case 0:
		return
	case 1:
		copies = 2
	}
	for range copies {
		delay := latency
		if d.lose == nil && d.fates.IntN(4) == 0 {
			delay += time.Duration(d.fates.Int64N(int64(2 * time.Second)))
		}
		time.AfterFunc(delay, arrive)
	}
}

func (d *datagrams) fate() int {
	if d.lose != nil {
		return 2
	}
	return d.fates.IntN(10)
}

func (d *datagrams) Send(_ context.Context, apdu []byte) error {
	apdu = bytes.Clone(apdu)
	d.sent = append(d.sent, apdu)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fate() == 0 {
		return nil
	}
	time.AfterFunc(latency, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		answers := d.session.Answer(16, apdu)
		if d.lose != nil && d.lose(apdu) {
			return
		}
		for _, answer := range answers {
			d.travel(func() { d.in <- answer })
		}
	})
	return nil
}

func (d *datagrams) Receive(ctx context.Context, b []byte) ([]byte, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case apdu := <-d.in:
		return append(b, apdu...), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, os.ErrDeadlineExceeded
	}
}

// snapshots gives objects that never give the same twice: each register is its
// number and how often the meter was read, each text is that octet again and
// again.
func snapshots() []dlmstest.Object {
	var reads uint32
	var objects []dlmstest.Object
	for i := range 4 {
		objects = append(objects, dlmstest.Attributes(3, register(i).Code, map[int8]func() axdr.Value{2: func() axdr.Value {
			reads++
			return axdr.DoubleLongUnsigned(uint32(i)<<24 | reads)
		}}))
	}
	return append(objects, dlmstest.Attributes(1, text().Code, map[int8]func() axdr.Value{2: func() axdr.Value {
		reads++
		return axdr.OctetString(string(bytes.Repeat([]byte{byte(reads)}, 200)))
	}}))
}

func register(i int) dlms.Attribute {
	return dlms.Attribute{Class: 3, Code: obis.Code{1, 0, byte(i + 1), 8, 0, 255}, ID: 2}
}

func text() dlms.Attribute {
	return dlms.Attribute{Class: 1, Code: obis.Code{0, 0, 96, 1, 0, 255}, ID: 2}
}

func onAir(seed uint64, grants uint32) (*dlms.Client, *datagrams) {
	d := &datagrams{in: make(chan []byte, 1<<12), fates: rand.New(rand.NewPCG(seed, 0))}
	d.session = dlmstest.NewMeter(dlmstest.Options{
		MaxPDU: 64, Objects: snapshots(), Clients: map[uint16]dlmstest.Login{16: {Conformance: grants}},
	}).NewSession()
	return dlms.NewClient(d, dlms.Options{Repeat: true, MaxPDU: 64, Conformance: dlms.Conformance(grants), Window: 3}), d
}

// TestRepeatNeverWrong reads over a line that loses, doubles and delays: what
// is read is of what was asked for, of one moment, and no older than the
// question.
func TestRepeatNeverWrong(t *testing.T) {
	t.Parallel()
	for name, grants := range map[string]uint32{
		"blocks": dlmstest.Everything &^ 0x200000, "no lists": dlmstest.Plain,
	} {
		good, repeated := 0, 0
		for seed := range uint64(60) {
			synctest.Test(t, func(t *testing.T) {
				client, d := onAir(seed, grants)
				if _, err := client.Associate(t.Context()); err != nil {
					return
				}
				for i := range 40 {
					if err := readOne(t.Context(), client, i); err == nil {
						good++
					} else if errors.Is(err, errWrong) {
						t.Errorf("%s, seed %d, %d: %v", name, seed, i, err)
					}
				}
				repeated += len(d.sent)
				time.Sleep(5 * time.Second) // of the bubble: what is late comes
			})
		}
		if good < 1500 {
			t.Errorf("%s: %d of 2400 read, %d requests", name, good, repeated)
		}
	}
}

var errWrong = errors.New("a wrong value")

func readOne(ctx context.Context, client *dlms.Client, i int) error {
	switch i % 4 {
	case 0:
		v, err := client.Get(ctx, text())
		if err == nil && v.Str != string(bytes.Repeat([]byte{v.Str[0]}, 200)) {
			return fmt.Errorf("%w: two texts in one: %x", errWrong, v.Str)
		}
		return err
	case 1:
		list := []dlms.Attribute{register(3), register(2), register(1)}
		items, err := client.ReadList(ctx, list)
		for k, item := range items {
			if item.Err == nil && item.Value.Num>>24 != uint64(3-k) {
				return fmt.Errorf("%w: %v at %d", errWrong, item.Value, k)
			}
		}
		return err
	}
	v, err := client.Get(ctx, register(i%3))
	if err == nil && v.Num>>24 != uint64(i%3) {
		return fmt.Errorf("%w: %x of register %d", errWrong, v.Num, i%3)
	}
	return err
}

// TestRepeat has what is sent again, and how often, when the first answer is lost.
func TestRepeat(t *testing.T) {
	t.Parallel()
	gmac := func(o *dlms.Options) { o.Mechanism, o.Password = dlms.LLS, dlms.Secret("12345678") }
	for name, c := range map[string]struct {
		change func(*dlms.Options)
		do     func(context.Context, *dlms.Client) error
		tag    byte
		want   int
	}{
		"association":             {nil, nil, 0x60, 2},
		"with a password":         {gmac, nil, 0x60, 1},
		"with a challenge":        {func(o *dlms.Options) { gmac(o); o.Mechanism = dlms.HLSMD5 }, nil, 0x60, 1},
		"without repeating":       {func(o *dlms.Options) { o.Repeat = false }, nil, 0x60, 1},
		"get":                     {nil, get, 0xC0, 2},
		"get without repeating":   {func(o *dlms.Options) { o.Repeat = false }, get, 0xC0, 1},
		"get with one id for all": {func(o *dlms.Options) { o.InvokeID = 1 }, get, 0xC0, 1},
		"get list":                {nil, getList, 0xC0, 2},
		"set":                     {nil, func(ctx context.Context, c *dlms.Client) error { return c.Set(ctx, register(0), axdr.Unsigned(1)) }, 0xC1, 1},
		"action":                  {nil, func(ctx context.Context, c *dlms.Client) error { _, err := c.Action(ctx, register(0), nil); return err }, 0xC3, 1},
		"release":                 {nil, func(ctx context.Context, c *dlms.Client) error { return c.Release(ctx) }, 0x62, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, d := onAir(0, dlmstest.Everything)
			o := dlms.Options{Repeat: true, Conformance: dlms.Conformance(dlmstest.Everything)}
			if c.change != nil {
				c.change(&o)
			}
			client := dlms.NewClient(d, o)
			d.lose = func(request []byte) bool { return request[0] == c.tag }
			_, err := client.Associate(t.Context())
			if c.do != nil {
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				err = c.do(t.Context(), client)
			}
			var sent [][]byte
			for _, request := range d.sent {
				if request[0] == c.tag {
					sent = append(sent, request)
				}
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || len(sent) != c.want {
				t.Errorf("%s: sent %X, %v", name, sent, err)
			}
			if c.tag == 0xC0 && c.want == 2 && sent[0][2] == sent[1][2] {
				t.Errorf("%s: both have the number %02X", name, sent[0][2])
			}
		})
	}
}

func get(ctx context.Context, c *dlms.Client) error {
	_, err := c.Get(ctx, register(0))
	return err
}

func getList(ctx context.Context, c *dlms.Client) error {
	_, err := c.GetList(ctx, []dlms.Attribute{register(0), register(1)})
	return err
}

// TestRepeatTakesNoGeneralBlocks has two answers in general blocks, which
// nobody can tell apart: the second is not taken.
func TestRepeatTakesNoGeneralBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, d := onAir(0, dlmstest.Everything)
		lost := false
		d.lose = func(request []byte) bool {
			defer func() { lost = lost || request[0] == 0xC0 }()
			return request[0] == 0xC0 && !lost
		}
		if _, err := client.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, err := client.Get(t.Context(), text()); !errors.Is(err, dlms.ErrMalformed) {
			t.Errorf("%v, %v", v, err)
		}
		if v, err := client.Get(t.Context(), text()); err != nil || len(v.Str) != 200 {
			t.Errorf("then %v, %v", v, err)
		}
	})
}
