package obis

import "testing"

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"1-0:1.8.0*255":  "1-0:1.8.0*255",
		"1-0:1.8.0":      "1-0:1.8.0*255",
		"1.0.1.8.0.255":  "1-0:1.8.0*255",
		"1.0.1.8.0":      "1-0:1.8.0*255",
		"0100010800FF":   "1-0:1.8.0*255",
		"0-0:98.1.0*101": "0-0:98.1.0*101",
		"0-0:97.98.20":   "0-0:97.98.20*255",
	} {
		c, err := Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if c.String() != want {
			t.Errorf("%s: got %s, want %s", in, c, want)
		}
		for _, again := range []string{c.String(), c.Short(), c.Dotted()} {
			if d, err := Parse(again); err != nil || d != c {
				t.Errorf("%s printed as %s reads back as %v, %v", in, again, d, err)
			}
		}
	}
	for _, bad := range []string{"", "1", "1-0:1.8", "1-0:1.8.256", "1-0:1.8.0*", "1-0:1.8.-1", "1-0-1.8.0", "0100010800FG", "1-0:1.8.0*255*1", "1.0.1.8.0.255.3", "+1-0:1.8.0"} {
		if c, err := Parse(bad); err == nil {
			t.Errorf("%q was taken for %s", bad, c)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1-0:1.8.0*255")
	f.Add("0100010800FF")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(c.String()); err != nil || again != c {
			t.Fatalf("%q: %s reads back as %s, %v", s, c, again, err)
		}
	})
}
