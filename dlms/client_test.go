package dlms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

var errSilence = errors.New("silence")

// script is a Transport that answers each request with what is next.
type script struct {
	answers [][]byte // of the requests to come
	waiting []byte
	sent    []string
}

func (s *script) Send(_ context.Context, apdu []byte) error {
	s.sent = append(s.sent, fmt.Sprintf("%X", apdu))
	return nil
}

func (s *script) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(s.answers) == 0 {
		return nil, errSilence
	}
	s.waiting, s.answers = s.answers[0], s.answers[1:]
	return append(b, s.waiting...), nil
}

// associated gives a client with an association over a script.
func associated(t *testing.T, o Options, answers ...string) (*Client, *script) {
	t.Helper()
	s := &script{answers: [][]byte{unhex(t, granting)}}
	for _, a := range answers {
		s.answers = append(s.answers, unhex(t, a))
	}
	c := NewClient(s, o)
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sent = nil
	return c, s
}

func energy() Attribute {
	return Attribute{Class: 3, Code: obis.Code{1, 0, 1, 8, 0, 255}, ID: 2}
}

func TestGet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []string
		want    axdr.Value
		sent    []string // after the request
	}{
		"normal":              {[]string{"C401C10006000004D2"}, axdr.DoubleLongUnsigned(1234), nil},
		"low priority in it":  {[]string{"C401410006000004D2"}, axdr.DoubleLongUnsigned(1234), nil},
		"octets after it":     {[]string{"C401C10006000004D2AABB"}, axdr.DoubleLongUnsigned(1234), nil},
		"one block":           {[]string{"C402C101000000010005 06000004D2"}, axdr.DoubleLongUnsigned(1234), nil},
		"three blocks":        {[]string{"C402C100000000010002 0600", "C402C100000000020001 00", "C402C1FF00000003008102 04D2"}, axdr.DoubleLongUnsigned(1234), []string{"C002C100000001", "C002C100000002"}},
		"late answers first":  {[]string{"C401CF0006FFFFFFFF", "C402C90000000009000100", "C701C20000", "C401C10006000004D2"}, axdr.DoubleLongUnsigned(1234), nil},
		"notifications first": {[]string{"0F00000001000200", "C20000", "C401C10006000004D2"}, axdr.DoubleLongUnsigned(1234), nil},
		"an empty last block": {[]string{"C402C100000000010005 06000004D2", "C402C101000000020000"}, axdr.DoubleLongUnsigned(1234), []string{"C002C100000001"}},
	} {
		client, s := associated(t, Options{}, c.answers...)
		got, err := client.Get(t.Context(), energy())
		want := append([]string{"C001C1000301000108" + "00FF0200"}, c.sent...)
		if err != nil || !got.Equal(c.want) || fmt.Sprint(s.sent) != fmt.Sprint(want) || len(s.answers) != 0 {
			t.Errorf("%s: got %+v, %v, sent %v, want %v", name, got, err, s.sent, want)
		}
	}
}

func TestGetFails(t *testing.T) {
	t.Parallel()
	stray := strings.Split(strings.Repeat("C401C20000 ", maxStray), " ")[:maxStray]
	for name, c := range map[string]struct {
		answers []string
		is      error
		words   string
	}{
		"undefined":              {[]string{"C401C10104"}, ObjectUndefined, "get 1-0:1.8.0*255/3:2: object undefined"},
		"denied":                 {[]string{"C401C10103"}, ReadWriteDenied, "read or write denied"},
		"another reason":         {[]string{"C401C101FA"}, OtherReason, "another reason"},
		"a reason of the future": {[]string{"C401C10163"}, AccessError(99), "refused with result 99"},
		"refused in blocks":      {[]string{"C402C10100000001010F"}, LongGetAborted, "long get or action aborted"},
		"refused midway":         {[]string{"C402C10000000001000206 00", "C402C10100000002010E"}, BlockUnavailable, "block unavailable"},
		"silence":                {nil, errSilence, "silence"},
		"silence midway":         {[]string{"C402C1000000000100020600"}, errSilence, "silence"},
		"only late answers":      {stray, ErrMalformed, "16 answers to other requests"},
		"result 0":               {[]string{"C401C10100"}, ErrMalformed, "neither data nor a reason"},
		"choice 2":               {[]string{"C401C102"}, ErrMalformed, "choice 2"},
		"form 9":                 {[]string{"C409C100"}, ErrMalformed, "form 9"},
		"no data":                {[]string{"C401C100"}, ErrMalformed, "cut short"},
		"short data":             {[]string{"C401C10006000004"}, axdr.ErrTruncated, "double-long-unsigned"},
		"unknown data":           {[]string{"C401C10063"}, axdr.ErrTag, "tag 99"},
		"short block":            {[]string{"C402C101000000010005060000"}, ErrMalformed, "cut short"},
		"wrong block":            {[]string{"C402C1000000000200020600"}, ErrMalformed, "block 2 came where block 1"},
		"block twice":            {[]string{"C402C1000000000100020600", "C402C1000000000100020600"}, ErrMalformed, "block 1 came where block 2"},
		"empty block":            {[]string{"C402C100000000010000"}, ErrMalformed, "is empty"},
		"whole after a block":    {[]string{"C402C1000000000100020600", "C401C10006000004D2"}, ErrMalformed, "after 1 blocks"},
		"empty apdu":             {[]string{""}, ErrMalformed, "empty"},
		"something else":         {[]string{"6303800100"}, ErrMalformed, "answers nothing"},
		"one octet":              {[]string{"C4"}, ErrMalformed, ""},
		"short exception":        {[]string{"D801"}, ErrMalformed, "exception"},
		"short service error":    {[]string{"0E01"}, ErrMalformed, "service error"},
	} {
		client, _ := associated(t, Options{}, c.answers...)
		got, err := client.Get(t.Context(), energy())
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.words) || !got.Equal(axdr.Value{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestTypedErrors(t *testing.T) {
	t.Parallel()
	client, _ := associated(t, Options{}, "D80101", "0E050503", "D80909")
	var exception *ExceptionError
	if _, err := client.Get(t.Context(), energy()); !errors.As(err, &exception) ||
		exception.Error() != "exception: service not allowed: operation not possible" {
		t.Errorf("exception: %v", err)
	}
	var service *ServiceError
	if _, err := client.Get(t.Context(), energy()); !errors.As(err, &service) || service.Error() != "read: hardware fault" {
		t.Errorf("service error: %v", err)
	}
	if _, err := client.Get(t.Context(), energy()); !errors.As(err, &exception) || exception.Error() != "exception: state 9: service error 9" {
		t.Errorf("exception: %v", err)
	}
}

func TestAction(t *testing.T) {
	t.Parallel()
	method := Attribute{Class: 70, Code: obis.Code{0, 0, 96, 3, 10, 255}, ID: 1}
	for answer, c := range map[string]struct {
		want axdr.Value
		is   error
	}{
		"C701C10000":          {axdr.Null(), nil},
		"C701C100":            {axdr.Null(), nil},
		"C701C100010012 0007": {axdr.LongUnsigned(7), nil},
		"C701C10103":          {axdr.Null(), AccessError(1)},
		"C701C1000104":        {axdr.Null(), ErrMalformed},
		"C701C100010104":      {axdr.Null(), ObjectUndefined},
		"C702C100":            {axdr.Null(), ErrMalformed},
		"C701C1":              {axdr.Null(), ErrMalformed},
	} {
		client, s := associated(t, Options{}, answer)
		got, err := client.Action(t.Context(), method, nil)
		if !errors.Is(err, c.is) || !got.Equal(c.want) || s.sent[0] != "C301C100460000600"+"30AFF0100" {
			t.Errorf("%s: %+v, %v, sent %v", answer, got, err, s.sent)
		}
	}
}

func TestInvokeIDsDiffer(t *testing.T) {
	t.Parallel()
	c, s := associated(t, Options{})
	for i := range 17 {
		id := byte(i%15 + 1)
		s.answers = [][]byte{{0xC4, 1, 0xC0 | id, 0, 0x11, byte(i)}}
		if got, err := c.Get(t.Context(), energy()); err != nil || got.Num != uint64(i) {
			t.Fatalf("request %d: %+v, %v", i, got, err)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	c, s := associated(t, Options{MaxAnswer: 6}, "C402C10000000001000409070102", "C402C100000000020003030405")
	if _, err := c.Get(t.Context(), energy()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("answer over the limit: %v", err)
	}
	c.granted.MaxPDU = 12
	if _, err := c.Get(t.Context(), energy()); !errors.Is(err, ErrNotGranted) || len(s.sent) != 2 {
		t.Errorf("request over the meter's limit: %v, %v", err, s.sent)
	}
	c.granted = Association{Conformance: Set}
	if _, err := c.Get(t.Context(), energy()); !errors.Is(err, ErrNotGranted) || len(s.sent) != 2 {
		t.Errorf("service that is not granted: %v, %v", err, s.sent)
	}
	s.answers = [][]byte{unhex(t, "6303800100")}
	if err := c.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Release(t.Context()); err != nil || len(s.sent) != 3 {
		t.Errorf("second release: %v, %v", err, s.sent)
	}
	if _, err := c.Get(t.Context(), energy()); !errors.Is(err, ErrNotAssociated) {
		t.Errorf("get without an association: %v", err)
	}
	if _, err := c.Action(t.Context(), energy(), nil); !errors.Is(err, ErrNotAssociated) {
		t.Errorf("action without an association: %v", err)
	}
}

func TestAnswersAliasNothing(t *testing.T) {
	t.Parallel()
	c, _ := associated(t, Options{}, "C401C1000903414243", "C401C2000903585859")
	first, err := c.Get(t.Context(), energy())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), energy()); err != nil || first.Str != "ABC" {
		t.Errorf("the second answer made the first %q, %v", first.Str, err)
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 64)
	rows := &Range{From: DateTime{Year: 2026}, To: DateTime{Year: 2027}}
	if n := testing.AllocsPerRun(100, func() {
		AppendGet(buf, 3, energy(), nil)
		AppendGet(buf, 3, energy(), rows)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzGetResponse(f *testing.F) {
	f.Add(unhex(f, "C401C10006000004D2"), []byte(nil))
	f.Add(unhex(f, "C402C1000000000100020600"), unhex(f, "C402C1010000000200810204D2"))
	f.Add(unhex(f, "C401C10104"), unhex(f, "D80202"))
	f.Add(unhex(f, "C2"), unhex(f, "C40131001130"))
	f.Add(unhex(f, "E0303030303000"), unhex(f, "C40131001130"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		c := NewClient(&script{answers: [][]byte{first, second}}, Options{})
		c.open, c.granted.Conformance = true, Get
		v, err := c.Get(t.Context(), energy())
		if err != nil {
			return
		}
		// A value is given only where its encoding, or the pieces of it, came in,
		// and the tag of an answer before it.
		both := slices.Concat(first, second)
		tag := bytes.IndexByte(both, tagGetResponse)
		b, err := v.AppendBinary(nil)
		if err != nil || tag < 0 || len(b) > len(both)-tag-1 {
			t.Fatalf("%x, %x gave %+v, %v", first, second, v, err)
		}
	})
}

// TestProposal has the services that are proposed, and the PDU.
func TestProposal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"by default":    {Options{}, "5F1F0400207EDF1000"},
		"short names":   {Options{ShortNames: true}, "5F1F04003C03201000"},
		"what is given": {Options{Conformance: Get, MaxPDU: 128}, "5F1F04000000100080"},
	} {
		s := &script{}
		_, err := NewClient(s, c.o).Associate(t.Context())
		if !errors.Is(err, errSilence) || len(s.sent) != 1 || !strings.HasSuffix(s.sent[0], c.want) {
			t.Errorf("%s: %v, %v", name, s.sent, err)
		}
	}
}
