package configs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/drivers/address"
	"gridgate/internal/meter"
	"gridgate/internal/sys/zone"
)

// day is a day of 24 hours, the largest unit that durations are written in.
const day = 24 * time.Hour

// text gives a single value as it is written: 00012 stays 00012.
func (r *reader) text(at string, n *yaml.Node, want string) (string, bool) {
	if r.tells(at, "description", want, "type", scalars()) {
		return "", false
	}
	if n.Kind == yaml.AliasNode {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		r.fail(at, n, "", "is %s; want %s", kindName(n), want)
		return "", false
	}
	return n.Value, true
}

// checked gives a single value that ok accepts.
func (r *reader) checked(at string, n *yaml.Node, want string, ok func(string) bool) string {
	s, is := r.text(at, n, want)
	if is && !ok(s) {
		r.fail(at, n, s, "want %s", want)
		return ""
	}
	return s
}

func (r *reader) id(at string, n *yaml.Node) meter.ID {
	const want = "1 to 32 characters of a-z, 0-9 and '-'"
	if r.tells(at, "description", want, "type", scalars(), "pattern", "^[a-z0-9-]{1,32}$") {
		return ""
	}
	return meter.ID(r.checked(at, n, want, isID))
}

func isID(s string) bool {
	_, err := meter.ParseID(s)
	return err == nil
}

// path takes a path of a file or a directory, at most limit bytes.
func (r *reader) path(at string, n *yaml.Node, limit int) string {
	want := fmt.Sprintf("a path of 1 to %d bytes", limit)
	if r.tells(at, "description", want, "type", "string", "minLength", 1, "maxLength", limit) {
		return ""
	}
	return r.checked(at, n, want, func(s string) bool {
		return s != "" && len(s) <= limit && isPrintable(s)
	})
}

func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) < 0
}

// isToken says that s has only visible ASCII.
func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) < 0
}

func (r *reader) integer(at string, n *yaml.Node, low, high int64) int64 {
	want := fmt.Sprintf("a whole number, %d to %d", low, high)
	if r.tells(at, "description", want, "type", "integer", "minimum", low, "maximum", high) {
		return low
	}
	s := r.checked(at, n, want, func(s string) bool {
		i, err := strconv.ParseInt(s, 10, 64)
		return err == nil && n.Tag == "!!int" && i >= low && i <= high
	})
	i, _ := strconv.ParseInt(s, 10, 64)
	return i
}

func (r *reader) number(at string, n *yaml.Node) float64 {
	s := r.checked(at, n, "a number", func(s string) bool {
		_, err := strconv.ParseFloat(s, 64)
		return err == nil && (n.Tag == "!!int" || n.Tag == "!!float")
	})
	f, _ := strconv.ParseFloat(s, 64)
	return f
}

func (r *reader) boolean(at string, n *yaml.Node) bool {
	if r.tells(at, "type", "boolean") {
		return false
	}
	return r.checked(at, n, "true or false", func(s string) bool {
		return n.Tag == "!!bool" && (s == "true" || s == "false")
	}) == "true"
}

func (r *reader) oneOf(at string, n *yaml.Node, names ...string) string {
	if r.tells(at, "enum", names) {
		return ""
	}
	return r.checked(at, n, strings.Join(names, " or "), func(s string) bool {
		return slices.Contains(names, s)
	})
}

func (r *reader) duration(at string, n *yaml.Node, low, high time.Duration) time.Duration {
	want := fmt.Sprintf("a duration with a unit, %s to %s", formatDuration(low), formatDuration(high))
	if r.tells(at, "description", want, "type", "string", "pattern", durationPattern) {
		return low
	}
	s := r.checked(at, n, want, func(s string) bool {
		d, ok := parseDuration(s)
		return ok && d >= low && d <= high
	})
	d, _ := parseDuration(s)
	return d
}

// parseDuration reads what time.ParseDuration reads, with days before it, and
// never without a unit: 15m, 1h30m, 31d, 1d12h.
func parseDuration(s string) (time.Duration, bool) {
	days := uint64(0)
	if head, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 14)
		if err != nil {
			return 0, false
		}
		days, s = n, rest
		if s == "" {
			return time.Duration(days) * day, true
		}
	}
	if s == "" || s[0] == '-' || s[0] == '+' || strings.IndexByte("smh", s[len(s)-1]) < 0 {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	if err != nil || d > 10000*day {
		return 0, false
	}
	return time.Duration(days)*day + d, true
}

// formatDuration writes a duration as people do: 5m, not 5m0s.
func formatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// sizeUnits are the units of sizes, the longest suffix first.
var sizeUnits = []struct { //nolint:gochecknoglobals // a constant table
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"B", 1},
}

func (r *reader) size(at string, n *yaml.Node, low, high int64) int64 {
	want := fmt.Sprintf("a size with a unit, %s to %s", formatSize(low), formatSize(high))
	if r.tells(at, "description", want, "type", "string", "pattern", sizePattern) {
		return low
	}
	s := r.checked(at, n, want, func(s string) bool {
		b, ok := parseSize(s)
		return ok && b >= low && b <= high
	})
	b, _ := parseSize(s)
	return b
}

// parseSize reads a whole number with a unit: 512B, 16KiB, 4MiB, 1GB.
func parseSize(s string) (int64, bool) {
	for _, u := range sizeUnits {
		if head, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseUint(head, 10, 32)
			return int64(n) * u.bytes, err == nil
		}
	}
	return 0, false
}

func formatSize(b int64) string {
	for _, u := range []int{2, 1, 0} {
		if b >= sizeUnits[u].bytes && b%sizeUnits[u].bytes == 0 {
			return strconv.FormatInt(b/sizeUnits[u].bytes, 10) + sizeUnits[u].suffix
		}
	}
	return strconv.FormatInt(b, 10) + "B"
}

// zone reads the name of a time zone.
func (r *reader) zone(at string, n *yaml.Node) *time.Location {
	var l *time.Location
	r.checked(at, n, "the name of a time zone, such as Europe/Berlin or UTC", func(s string) bool {
		var err error
		l, err = zone.Load(s)
		return err == nil && s != "" && s != "Local"
	})
	return l
}

// secret reads a reference to a secret. It shows nothing of what stands there.
func (r *reader) secret(at string, n *yaml.Node) address.Secret {
	const want = "a reference to the secret: file:/etc/gridgate/NAME, env:NAME or secret:NAME"
	s, ok := r.text(at, n, want)
	if !ok {
		return address.Secret{}
	}
	secret, err := address.ParseSecret(s)
	switch {
	case err != nil:
		r.fail(at, n, "", "%v", err)
	case secret.IsLiteral():
		r.fail(at, n, "", "%s", literalAdvice(""))
	case secret.IsZero():
		r.fail(at, n, "", "is empty; want %s", want)
	}
	r.refer(at, "", n, secret)
	return secret
}

// list reads a list of at most limit values.
func (r *reader) list(at string, n *yaml.Node, limit int, each func(at string, n *yaml.Node)) {
	if r.tells(at, "type", "array", "maxItems", limit) {
		each(at+"[]", n)
		return
	}
	if !r.kind(at, n, yaml.SequenceNode, "a list: [a, b]") {
		return
	}
	if len(n.Content) > limit {
		r.fail(at, n, "", "has %d entries; want at most %d", len(n.Content), limit)
		return
	}
	for i, c := range n.Content {
		each(fmt.Sprintf("%s[%d]", at, i), c)
	}
}
