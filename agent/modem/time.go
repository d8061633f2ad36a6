package modem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// NetworkTime asks a modem what time its network told it, by AT+CCLK? (3GPP TS
// 27.007, 8.15). It has whole seconds.
func NetworkTime(ctx context.Context, p Port) (t time.Time, err error) {
	lines, err := speak(ctx, p, "AT+CCLK?", answerTime)
	if err != nil {
		return t, fmt.Errorf("modem: %w", err)
	}
	err = errors.New("says OK and no time")
	for _, l := range lines {
		if strings.HasPrefix(l, "+CCLK:") {
			t, err = ParseCCLK(l)
		}
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("modem: %w", err)
	}
	return t, nil
}

// ParseCCLK reads the answer to AT+CCLK?, +CCLK: "yy/MM/dd,hh:mm:ss±zz": local
// time, and how many quarters of an hour it is ahead of UTC, daylight saving
// included. A modem without network time counts from 1980, 2000 or 2004, which
// the caller has to know from the present; the years from 1969 to 1999 are
// refused here.
func ParseCCLK(line string) (time.Time, error) {
	refuse := func(why string) (time.Time, error) {
		if len(line) > 60 {
			line = line[:60] + "…"
		}
		return time.Time{}, fmt.Errorf("%q: %s", line, why)
	}
	text, ok := strings.CutPrefix(line, "+CCLK:")
	text = strings.TrimSpace(text)
	if !ok || len(text) < 2 || text[0] != '"' || text[len(text)-1] != '"' {
		return refuse(`want +CCLK: "yy/MM/dd,hh:mm:ss±zz"`)
	}
	text = text[1 : len(text)-1]
	const local = "06/01/02,15:04:05"
	if len(text) == len(local) {
		return refuse("has no time zone, and is local time")
	}
	if len(text) != len(local)+3 {
		return refuse("want yy/MM/dd,hh:mm:ss±zz")
	}
	for i, c := range []byte(text) {
		if digit := c >= '0' && c <= '9'; digit != (i%3 != 2) {
			return refuse("want yy/MM/dd,hh:mm:ss±zz")
		}
	}
	zone := time.Duration(int(text[18]-'0')*10+int(text[19]-'0')) * 15 * time.Minute
	switch sign := text[17]; {
	case sign == '-':
		zone = -zone
	case sign != '+':
		return refuse("want + or - before the time zone")
	}
	if zone.Abs() > 15*time.Hour {
		return refuse("is further from UTC than any place")
	}
	t, err := time.Parse(local, text[:len(local)])
	if err != nil || text[:2] >= "69" {
		return refuse("is no time of this century")
	}
	return t.Add(-zone).UTC(), nil
}
