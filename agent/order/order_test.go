package order_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"pgregory.net/rapid"

	"gridgate/agent/order"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	d, err := u.trust.Verify(sealed(config, u.by[order.Config]))
	if err != nil {
		t.Fatal(err)
	}
	if d.Kind != order.KindConfig || d.Target.String() != "site-1/gw-1" || d.Version != 7 || string(d.Payload) != "version: 1\nsite: site-1\n" {
		t.Errorf("got %+v", d)
	}
	if d.Signed(order.Config) != 1 || d.Signed(order.Root) != 0 {
		t.Error("signers are counted wrongly")
	}
	for _, r := range []order.Role{order.Command, order.Control} {
		d, err := u.trust.Verify(sealed(command, u.by[r]))
		if err != nil || d.ID != "read-1" || d.Signed(r) != 1 {
			t.Errorf("command by %s: %+v, %v", r, d, err)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	by, stranger := u.by, key(t)
	good := sealed(config, by[order.Config])
	replace := func(old, next string) []byte { return sealed(strings.Replace(config, old, next, 1), by[order.Config]) }
	for name, c := range map[string]struct {
		data []byte
		want error
		text string
	}{
		"empty":              {nil, order.ErrUnsigned, "does not begin with a minisign signature"},
		"unsigned":           {[]byte(config), order.ErrUnsigned, ""},
		"a stranger":         {sealed(config, stranger), order.ErrSignature, "is not trusted here"},
		"a stranger too":     {sealed(config, by[order.Config], stranger), order.ErrSignature, "signature 2: key"},
		"another role":       {sealed(config, by[order.Firmware]), order.ErrRole, "config wants the role config, and it is signed by firmware"},
		"root":               {sealed(config, u.root[0], u.root[1]), order.ErrRole, ""},
		"control for config": {sealed(config, by[order.Control]), order.ErrRole, ""},
		"body changed":       {bytes.Replace(good, []byte("gw-1"), []byte("gw-2"), 1), order.ErrSignature, "it is not of this document by key"},
		"comment changed":    {bytes.Replace(good, []byte("for a test"), []byte("for a tesT"), 1), order.ErrSignature, ""},
		"untrusted comment":  {bytes.Replace(good, []byte("from minisign"), []byte("from nobody.."), 1), order.ErrSignature, "its first line wants"},
		"no empty line":      {bytes.Replace(good, []byte("\n\n"), []byte("\n"), 1), order.ErrSignature, "signature 2"},
		"too large":          {append(good, make([]byte, order.MaxSize)...), order.ErrTooLarge, ""},
		"many signatures":    {order.Seal([]byte(config), bytes.Repeat(order.Sign(by[order.Config], []byte(config), ""), 9)), order.ErrTooLarge, ""},
		"unknown kind":       {replace("kind: config", "kind: recipe"), order.ErrKind, `"recipe"; want trust`},
		"no header":          {sealed("version: 1\n", by[order.Config]), order.ErrMalformed, "no line '---'"},
		"unknown key":        {replace("kind:", "kin: 1\nkind:"), order.ErrMalformed, "line 2"},
		"twice a key":        {replace("kind:", "kind: config\nkind:"), order.ErrMalformed, "line 3"},
		"a later format":     {replace("gridgate: 1", "gridgate: 2"), order.ErrMalformed, "gridgate: 2; this agent reads documents of format 1"},
		"no version":         {replace("version: 7\n", ""), order.ErrMalformed, "version: missing"},
		"version 0":          {replace("version: 7\n", "version: 0\n"), order.ErrMalformed, "version: missing"},
		"negative":           {replace("version: 7\n", "version: -7\n"), order.ErrMalformed, "line 4"},
		"a config with id":   {replace("version: 7", "version: 7\nid: x"), order.ErrMalformed, "id: only commands"},
		"everybody":          {replace("site-1/gw-1", "'*'"), order.ErrMalformed, "target: '*' is for trust"},
		"no target":          {replace("site-1/gw-1", "gw-1"), order.ErrMalformed, "want SITE/GATEWAY"},
		"a bad target":       {replace("site-1/gw-1", "site-1/GW#"), order.ErrMalformed, `"GW#"`},
		"a bad time":         {replace("version: 7", "version: 7\nnot_after: tomorrow"), order.ErrMalformed, `not_after: "tomorrow"`},
		"never valid":        {replace("version: 7", "version: 7\nnot_after: 2026-01-01T00:00:00Z\nnot_before: 2026-01-01T00:00:00Z"), order.ErrMalformed, "is not after"},
		"a bad agent":        {replace("version: 7", "version: 7\nmin_agent: latest"), order.ErrMalformed, "min_agent"},
		"an alias":           {replace("version: 7", "version: &a 7\nid: *a"), order.ErrMalformed, "anchors"},
		"deep":               {replace("version: 7", "version: "+strings.Repeat("[", 40)+strings.Repeat("]", 40)), order.ErrMalformed, "nested"},
		"no text":            {replace("version: 7", "version: 7\x00"), order.ErrMalformed, "no text"},
		"a command no end": {
			sealed(strings.Replace(command, "not_after: 2026-11-22T12:00:00Z\n", "", 1), by[order.Command]),
			order.ErrMalformed, "not_after: missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := u.trust.Verify(c.data)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %+v, %v; want %v … %q", d, err, c.want, c.text)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	verified := func(body string, r order.Role) *order.Document {
		d, err := u.trust.Verify(sealed(body, u.by[r]))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	at := func(s string) time.Time {
		when, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	cfg, cmd := verified(config, order.Config), verified(command, order.Command)
	group := verified(strings.Replace(config, "site-1/gw-1", "site-1/_group/north", 1), order.Config)
	newer := verified(strings.Replace(config, "version: 7", "version: 7\nmin_agent: 1.10.0", 1), order.Config)
	seen := func(version uint64, hash [32]byte) func(order.Kind, order.Target) (uint64, [32]byte, bool) {
		return func(order.Kind, order.Target) (uint64, [32]byte, bool) { return version, hash, true }
	}
	here := order.Here{Site: "site-1", Gateway: "gw-1", Groups: []string{"north"}, Agent: "1.9.0", Now: at("2026-11-22T11:00:00Z"), Trusted: true}
	for name, c := range map[string]struct {
		d      *order.Document
		change func(h *order.Here)
		want   order.Verdict
		err    error
	}{
		"new":              {cfg, func(*order.Here) {}, order.Take, nil},
		"newer than seen":  {cfg, func(h *order.Here) { h.Seen = seen(6, [32]byte{}) }, order.Take, nil},
		"the same":         {cfg, func(h *order.Here) { h.Seen = seen(7, cfg.Hash) }, order.Same, nil},
		"the same number":  {cfg, func(h *order.Here) { h.Seen = seen(7, [32]byte{1}) }, order.Take, order.ErrOlder},
		"older":            {cfg, func(h *order.Here) { h.Seen = seen(8, cfg.Hash) }, order.Take, order.ErrOlder},
		"another gateway":  {cfg, func(h *order.Here) { h.Gateway = "gw-2" }, order.Take, order.ErrTarget},
		"another site":     {cfg, func(h *order.Here) { h.Site = "site-2" }, order.Take, order.ErrTarget},
		"our group":        {group, func(*order.Here) {}, order.Take, nil},
		"another group":    {group, func(h *order.Here) { h.Groups = []string{"south"} }, order.Take, order.ErrTarget},
		"group, elsewhere": {group, func(h *order.Here) { h.Site = "site-2" }, order.Take, order.ErrTarget},
		"a newer agent":    {newer, func(*order.Here) {}, order.Take, order.ErrAgent},
		"new enough":       {newer, func(h *order.Here) { h.Agent = "v1.10.0-3-gabc" }, order.Take, nil},
		"no clock":         {cmd, func(h *order.Here) { h.Trusted = false }, order.Wait, nil},
		"no clock needed":  {cfg, func(h *order.Here) { h.Trusted = false }, order.Take, nil},
		"in time":          {cmd, func(*order.Here) {}, order.Take, nil},
		"at its end":       {cmd, func(h *order.Here) { h.Now = at("2026-11-22T12:00:00Z") }, order.Take, order.ErrExpired},
		"too early":        {cmd, func(h *order.Here) { h.Now = at("2026-11-22T09:59:59Z") }, order.Take, order.ErrTooEarly},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := here
			c.change(&h)
			got, err := c.d.Judge(h)
			if !errors.Is(err, c.err) || err == nil && got != c.want {
				t.Errorf("got %v, %v; want %v, %v", got, err, c.want, c.err)
			}
		})
	}
}

func TestTrustIsReplaced(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	next := [3]minisign.PrivateKey{u.root[1], u.root[2], key(t)} // root[0] is lost
	body := u.body(2, 2, next[:])
	got, d, err := u.trust.VerifyTrust(sealed(body, u.root[1], u.root[2]))
	if err != nil || d.Version != 2 || got.Version != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := got.Verify(sealed(config, u.by[order.Config])); err != nil {
		t.Error(err)
	}
	if _, _, err := got.VerifyTrust(sealed(u.body(3, 1, u.root[:1]), u.root[0])); !errors.Is(err, order.ErrSignature) {
		t.Errorf("the lost key still signs: %v", err)
	}
	other := [2]minisign.PrivateKey{key(t), key(t)}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"one of two":         {sealed(body, u.root[1]), order.ErrThreshold},
		"one, twice":         {sealed(body, u.root[1], u.root[1]), order.ErrThreshold},
		"new keys alone":     {sealed(u.body(2, 2, other[:]), other[0], other[1]), order.ErrSignature},
		"one old, all new":   {sealed(u.body(2, 2, other[:]), u.root[0], other[0], other[1]), order.ErrThreshold},
		"no new key":         {sealed(u.body(2, 2, other[:]), u.root[0], u.root[1]), order.ErrThreshold},
		"and a stranger":     {sealed(body, u.root[1], u.root[2], key(t)), order.ErrSignature},
		"config for root":    {sealed(body, u.by[order.Config]), order.ErrRole},
		"no root":            {sealed(strings.Replace(body, "  root:", "  config:", 1), u.root[1], u.root[2]), order.ErrMalformed},
		"a threshold of 9":   {sealed(strings.Replace(body, "threshold: 2", "threshold: 9", 1), u.root[1], u.root[2]), order.ErrMalformed},
		"a threshold of 0":   {sealed(strings.Replace(body, "threshold: 2", "threshold: 0", 1), u.root[1], u.root[2]), order.ErrMalformed},
		"no key":             {sealed(strings.Replace(body, "[RW", "[XW", 1), u.root[1], u.root[2]), order.ErrMalformed},
		"a key of two roles": {sealed(strings.Replace(body, public(u.by[order.Config]), public(u.root[1]), 1), u.root[1], u.root[2]), order.ErrMalformed},
		"no role":            {sealed(strings.Replace(body, "  config:", "  king:", 1), u.root[1], u.root[2]), order.ErrMalformed},
	} {
		if _, _, err := u.trust.VerifyTrust(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
	}
	if _, _, err := u.trust.VerifyTrust(sealed(u.body(2, 2, other[:]), u.root[0], u.root[1], other[0], other[1])); err != nil {
		t.Errorf("old and new keys together: %v", err)
	}
	if _, _, err := order.FirstTrust(sealed(u.body(1, 2, u.root[:]), u.root[0])); !errors.Is(err, order.ErrThreshold) {
		t.Error("a first document under its own threshold was taken:", err)
	}
}

// TestNoMutationIsTaken changes documents in every way that comes to mind: what
// still verifies is what was signed.
func TestNoMutationIsTaken(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	good := sealed(command, u.by[order.Command], u.by[order.Control])
	rapid.Check(t, func(rt *rapid.T) {
		data := bytes.Clone(good)
		for range rapid.IntRange(1, 3).Draw(rt, "changes") {
			if len(data) == 0 {
				return
			}
			i := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
			switch rapid.SampledFrom([]string{"flip", "set", "cut", "insert", "end", "move", "double"}).Draw(rt, "how") {
			case "flip":
				data[i] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			case "set":
				data[i] = rapid.Byte().Draw(rt, "octet")
			case "cut":
				data = append(data[:i:i], data[i+1:]...)
			case "insert":
				data = append(data[:i:i], append([]byte{rapid.Byte().Draw(rt, "octet")}, data[i:]...)...)
			case "end":
				data = data[:i+1]
			case "move":
				data = append(data[i:len(data):len(data)], data[:i]...)
			case "double":
				data = append(data, data[i:]...)
			}
		}
		if d, err := u.trust.Verify(data); err == nil && !bytes.Equal(data, good) {
			rt.Errorf("taken: %+v\n%s", d, data)
		}
	})
}

// TestEveryOctetCounts flips each bit, and cuts at each length.
func TestEveryOctetCounts(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	good := sealed(config, u.by[order.Config])
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := u.trust.Verify(bad); err == nil {
				t.Errorf("octet %d, bit %d: taken", i, bit)
			}
		}
		if _, err := u.trust.Verify(good[:i]); err == nil {
			t.Errorf("cut at %d: taken", i)
		}
	}
}

// TestMinisign has Debian's minisign sign what we verify, and verify what we sign.
func TestMinisign(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "minisign", args...).CombinedOutput(); err != nil {
			t.Fatalf("minisign %v: %v\n%s", args, err, out)
		}
	}
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	run("-G", "-W", "-f", "-p", file("pub"), "-s", file("key"))
	u := newUtility(t)
	theirs, err := order.ParseKey(string(read("pub")))
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Replace(u.body(1, 2, u.root[:]), public(u.by[order.Config]), theirs.String(), 1)
	trust, _, err := order.FirstTrust(sealed(body, u.root[0], u.root[2]))
	if err != nil {
		t.Fatal(err)
	}
	write("body", []byte(config))
	for _, how := range [][]string{nil, {"-l"}} { // prehashed, and the older way
		run(append([]string{"-S", "-s", file("key"), "-m", file("body"), "-x", file("sig"), "-t", "push 7"}, how...)...)
		if d, err := trust.Verify(order.Seal(read("body"), read("sig"))); err != nil || d.Version != 7 {
			t.Errorf("%v: what minisign signed: %v", how, err)
		}
	}
	write("ours.pub", []byte("untrusted comment: ours\n"+public(u.by[order.Command])+"\n"))
	signed, signatures, err := order.Unseal(sealed(command, u.by[order.Command]))
	if err != nil {
		t.Fatal(err)
	}
	write("body2", signed)
	write("sig2", signatures[0])
	run("-V", "-p", file("ours.pub"), "-m", file("body2"), "-x", file("sig2"))
}

// FuzzVerify: nothing that is not signed is taken, and nothing panics.
func FuzzVerify(f *testing.F) {
	u := newUtility(f)
	good := sealed(config, u.by[order.Config])
	f.Add(good)
	f.Add(u.first)
	f.Add([]byte(config))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := u.trust.Verify(data); err == nil && !bytes.Equal(data, good) && !bytes.Equal(data, u.first) {
			t.Errorf("taken: %q", data)
		}
		if _, _, err := order.FirstTrust(data); err == nil && !bytes.Equal(data, u.first) {
			t.Errorf("trusted: %q", data)
		}
	})
}
