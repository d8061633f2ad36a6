package order_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"
	"pgregory.net/rapid"

	"gridgate/agent/order"
)

const firmware = "gridgate: 1\nkind: firmware\ntarget: site-1/gw-1\nversion: 3\nmin_agent: 1.0.0\n---\nimage: x\n"

// documents gives one of each kind that is taken, and how it is judged.
func documents(u *utility) map[order.Kind]struct {
	data []byte
	take func([]byte) error
} {
	verify := func(data []byte) error { _, err := u.trust.Verify(data); return err }
	return map[order.Kind]struct {
		data []byte
		take func([]byte) error
	}{
		order.KindConfig:   {sealed(config, u.by[order.Config]), verify},
		order.KindCommand:  {sealed(command, u.by[order.Command], u.by[order.Control]), verify},
		order.KindFirmware: {sealed(firmware, u.by[order.Firmware]), verify},
		order.KindTrust: {sealed(u.body(2, 2, u.root[:]), u.root[0], u.root[1]), func(data []byte) error {
			_, _, err := u.trust.VerifyTrust(data)
			return err
		}},
	}
}

// TestNoMutationOfAnyKindIsTaken changes lines of documents of each kind, of their
// headers and of their signatures, and mixes documents with one another: what is
// taken was signed.
func TestNoMutationOfAnyKindIsTaken(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	all := documents(u)
	for kind, d := range all {
		if err := d.take(d.data); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			others := [][]byte{u.first, d.data}
			for _, o := range all {
				others = append(others, o.data)
			}
			rapid.Check(t, func(rt *rapid.T) {
				lines := bytes.SplitAfter(d.data, []byte("\n"))
				for range rapid.IntRange(1, 4).Draw(rt, "changes") {
					lines = mutateLines(rt, lines, others)
				}
				data := bytes.Join(lines, nil)
				if err := d.take(data); err == nil && !isOf(data, others) {
					rt.Errorf("taken:\n%s", data)
				}
			})
		})
	}
}

// isOf says whether data is what somebody has signed, signatures and all; twice the
// same signature, or in another order, is as good.
func isOf(data []byte, signed [][]byte) bool {
	body, signatures, err := order.Unseal(data)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(signed, func(o []byte) bool {
		of, by, err := order.Unseal(o)
		return err == nil && bytes.Equal(of, body) && !slices.ContainsFunc(signatures, func(s []byte) bool {
			return !slices.ContainsFunc(by, func(b []byte) bool { return bytes.Equal(b, s) })
		})
	})
}

// mutateLines changes lines.
func mutateLines(rt *rapid.T, lines, others [][]byte) [][]byte {
	lines = slices.Clone(lines)
	if len(lines) == 0 {
		return lines
	}
	i, j := rapid.IntRange(0, len(lines)-1).Draw(rt, "line"), rapid.IntRange(0, len(lines)-1).Draw(rt, "other line")
	switch rapid.SampledFrom([]string{"swap", "drop", "repeat", "replace", "insert", "header", "octet", "base64", "case", "ending"}).Draw(rt, "how") {
	case "swap":
		lines[i], lines[j] = lines[j], lines[i]
	case "drop":
		lines = slices.Delete(lines, i, i+1)
	case "repeat":
		lines = slices.Insert(lines, j, lines[i])
	case "replace": // with one of another document, such as its signature
		from := bytes.SplitAfter(rapid.SampledFrom(others).Draw(rt, "document"), []byte("\n"))
		lines[i] = rapid.SampledFrom(from).Draw(rt, "its line")
	case "insert":
		from := bytes.SplitAfter(rapid.SampledFrom(others).Draw(rt, "document"), []byte("\n"))
		lines = slices.Insert(lines, i, rapid.SampledFrom(from).Draw(rt, "its line"))
	case "header":
		line := rapid.SampledFrom([]string{
			"version: 99\n", "kind: config\n", "kind: trust\n", "target: site-1/gw-2\n", "target: '*'\n", "not_after: 2099-01-01T00:00:00Z\n",
			"---\n", "\n", "trusted comment: for nobody\n", "untrusted comment: signature from minisign secret key\n", "id: x\n",
		}).Draw(rt, "header line")
		lines = slices.Insert(lines, i, []byte(line))
	case "octet":
		l := bytes.Clone(lines[i])
		if len(l) > 0 {
			l[rapid.IntRange(0, len(l)-1).Draw(rt, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		}
		lines[i] = l
	case "base64": // padding, and bits that nobody reads
		lines[i] = bytes.Replace(lines[i], []byte("="), []byte(rapid.SampledFrom([]string{"", "==", "A=", "\r="}).Draw(rt, "padding")), 1)
	case "case":
		lines[i] = bytes.ToUpper(lines[i])
	case "ending":
		lines[i] = append(bytes.TrimRight(lines[i], "\n"), rapid.SampledFrom([]string{"", "\r\n", " \n", "\n\n", "\x00\n"}).Draw(rt, "ending")...)
	}
	return lines
}

// TestTrustUnderThreshold: however few of the keys that have to sign are put
// together, with those of other roles, of strangers, and twice.
func TestTrustUnderThreshold(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	stranger := key(t)
	rapid.Check(t, func(rt *rapid.T) {
		next := [3]minisign.PrivateKey{u.root[0], u.root[1], stranger}
		body := u.body(2, rapid.IntRange(2, 3).Draw(rt, "threshold"), next[:])
		one := rapid.SampledFrom(u.root[:]).Draw(rt, "the one root key")
		pool := []minisign.PrivateKey{one, one, stranger}
		for _, r := range order.Roles()[1:] {
			pool = append(pool, u.by[r])
		}
		var by []minisign.PrivateKey
		for range rapid.IntRange(1, order.MaxSignatures).Draw(rt, "signatures") {
			by = append(by, rapid.SampledFrom(pool).Draw(rt, "key"))
		}
		if _, d, err := u.trust.VerifyTrust(sealed(body, by...)); err == nil {
			rt.Errorf("taken with %d signatures of root: %v", d.Signed(order.Root), d)
		}
	})
}

// TestDeepAndLong: a document that somebody trusted has signed, and that is too
// deep, too long or too much, is refused with its reason.
func TestDeepAndLong(t *testing.T) {
	t.Parallel()
	u := newUtility(t)
	for name, c := range map[string]struct {
		payload string
		want    error
	}{
		"lists":     {"a: " + strings.Repeat("[", 17) + strings.Repeat("]", 17), order.ErrMalformed},
		"mappings":  {strings.Repeat("{a: ", 17) + strings.Repeat("}", 17), order.ErrMalformed},
		"very deep": {"a: " + strings.Repeat("[", 100000), order.ErrMalformed},
		"indented":  {indented(200), order.ErrMalformed},
		"aliases":   {"a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", order.ErrMalformed},
		"too long":  {"a: " + strings.Repeat("x", order.MaxSize), order.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind, d := range documents(u) {
				body, _, err := order.Unseal(d.data)
				if err != nil {
					t.Fatal(err)
				}
				header, _, _ := strings.Cut(string(body), "---\n")
				by := map[order.Kind][]minisign.PrivateKey{
					order.KindConfig: {u.by[order.Config]}, order.KindCommand: {u.by[order.Command]}, order.KindFirmware: {u.by[order.Firmware]}, order.KindTrust: u.root[:2],
				}[kind]
				data := sealed(header+"---\n"+c.payload+"\n", by...)
				err = d.take(data)
				if kind != order.KindTrust && err == nil { // whose payload somebody else reads: a structure here
					verified, _ := u.trust.Verify(data)
					var into map[string]any
					err = verified.Decode(&into)
				}
				if !errors.Is(err, c.want) {
					t.Errorf("%s: %v; want %v", kind, err, c.want)
				}
			}
		})
	}
	// The same in the header.
	deep := fmt.Sprintf("gridgate: 1\nkind: config\ntarget: site-1/gw-1\nversion: 7\nid: %s%s\n---\na: 1\n", strings.Repeat("[", 50), strings.Repeat("]", 50))
	if _, err := u.trust.Verify(sealed(deep, u.by[order.Config])); !errors.Is(err, order.ErrMalformed) {
		t.Error(err)
	}
}

func indented(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}
