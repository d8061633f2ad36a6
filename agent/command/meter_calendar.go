package command

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gridgate/internal/meter"
)

// The most that calendars of meters hold.
const (
	mostSeasons  = 64
	mostDays     = 64
	mostSwitches = 64
	mostSpecial  = 366
	mostName     = 32 // octets
)

// calendarWith is what a calendar is ordered with.
type calendarWith struct {
	Object  string `yaml:"object"`
	Name    string `yaml:"name"`
	Seasons []struct {
		Name  string `yaml:"name"`
		Start string `yaml:"start"`
		Week  string `yaml:"week"`
	} `yaml:"seasons"`
	Weeks []struct {
		Name string `yaml:"name"`
		Days []int  `yaml:"days"`
	} `yaml:"weeks"`
	Days []struct {
		ID       int            `yaml:"id"`
		Switches []tariffSwitch `yaml:"switches"`
	} `yaml:"days"`
	Activate string `yaml:"activate"`
}

type tariffSwitch struct {
	At     string `yaml:"at"`
	Script int    `yaml:"script"`
	Table  string `yaml:"table"`
}

func newCalendar(decode func(any) error) (Executor, error) {
	var with calendarWith
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	act := meter.Calendar{Object: objectOf(&p, "object", with.Object, 20), CalName: with.Name}
	p.name("name", with.Name)
	days := with.days(&p, &act)
	weeks := with.weeks(&p, &act, days)
	with.seasons(&p, &act, weeks)
	switch with.Activate {
	case "now":
	case "no":
		act.PassOver = true
	default:
		at, err := time.Parse(time.RFC3339, with.Activate)
		if err != nil {
			p.wrong("activate", "%q; want now, a time such as 2027-01-01T00:00:00+01:00, or no: then it stays passive", clip(with.Activate))
		}
		act.At = at
	}
	return onMeter{act: act}, p.err()
}

// days reads the day profiles, and gives their numbers.
func (w *calendarWith) days(p *problems, act *meter.Calendar) map[int]bool {
	p.count("days", len(w.Days), mostDays)
	have := map[int]bool{}
	for i, d := range w.Days {
		key := fmt.Sprintf("days[%d]", i)
		if d.ID < 0 || d.ID > 255 || have[d.ID] {
			p.wrong(key+".id", "%d; want numbers of 0 to 255, each once", d.ID)
		}
		have[d.ID] = true
		act.Days = append(act.Days, meter.DayProfile{ID: uint8(d.ID), Switches: p.switches(key+".switches", d.Switches)})
	}
	return have
}

// switches reads what holds when on a day.
func (p *problems) switches(key string, all []tariffSwitch) (switches []meter.TariffSwitch) {
	p.count(key, len(all), mostSwitches)
	last := -1
	for n, s := range all {
		key := fmt.Sprintf("%s[%d]", key, n)
		at := p.clock(key+".at", s.At)
		switch {
		case n == 0 && at > 0:
			p.wrong(key+".at", "%q; want 00:00 for the first, or nobody knows what holds before it", s.At)
		case at >= 0 && at <= last:
			p.wrong(key+".at", "%q is not after the one before", clip(s.At))
		}
		if last = max(at, last); s.Script < 1 || s.Script > 65535 {
			p.wrong(key+".script", "%d; want 1 to 65535", s.Script)
		}
		switches = append(switches, meter.TariffSwitch{
			Hour: uint8(max(at, 0) / 60), Minute: uint8(max(at, 0) % 60), Script: uint16(s.Script), Table: objectOf(p, key+".table", s.Table, 9),
		})
	}
	return switches
}

// weeks reads the weeks, which are of days, and gives their names.
func (w *calendarWith) weeks(p *problems, act *meter.Calendar, days map[int]bool) map[string]bool {
	p.count("weeks", len(w.Weeks), mostSeasons)
	have := map[string]bool{}
	for i, one := range w.Weeks {
		key := fmt.Sprintf("weeks[%d]", i)
		p.name(key+".name", one.Name)
		if have[one.Name] {
			p.wrong(key+".name", "%q stands there twice", clip(one.Name))
		}
		have[one.Name] = true
		week := meter.Week{Name: one.Name}
		if len(one.Days) != 7 {
			p.wrong(key+".days", "%d; want seven, Monday to Sunday", len(one.Days))
		}
		for n, d := range one.Days {
			if !days[d] {
				p.wrong(key+".days", "%d is none of days", d)
			} else if n < 7 {
				week.Days[n] = uint8(d)
			}
		}
		act.Weeks = append(act.Weeks, week)
	}
	return have
}

func (w *calendarWith) seasons(p *problems, act *meter.Calendar, weeks map[string]bool) {
	p.count("seasons", len(w.Seasons), mostSeasons)
	have := map[string]bool{}
	for i, s := range w.Seasons {
		key := fmt.Sprintf("seasons[%d]", i)
		p.name(key+".name", s.Name)
		if have[s.Name] {
			p.wrong(key+".name", "%q stands there twice", clip(s.Name))
		}
		if have[s.Name] = true; !weeks[s.Week] {
			p.wrong(key+".week", "%q is none of weeks", clip(s.Week))
		}
		year, month, day := p.date(key+".start", s.Start)
		act.Seasons = append(act.Seasons, meter.Season{Name: s.Name, Year: year, Month: month, Day: day, Week: s.Week})
	}
}

// name checks what a meter keeps a name of.
func (p *problems) name(key, s string) {
	if s == "" || len(s) > mostName {
		p.wrong(key, "%q; want 1 to %d octets", clip(s), mostName)
	}
}

func (p *problems) count(key string, n, most int) {
	if n < 1 || n > most {
		p.wrong(key, "%d; want 1 to %d", n, most)
	}
}

// clock reads 06:30 as minutes; -1 is wrong.
func (p *problems) clock(key, s string) int {
	t, err := time.Parse("15:04", s)
	if err != nil {
		p.wrong(key, "%q; want a time of day such as 06:30", clip(s))
		return -1
	}
	return t.Hour()*60 + t.Minute()
}

// date reads 12-25, a day of every year, and 2027-12-25.
func (p *problems) date(key, s string) (year uint16, month, day uint8) {
	year = 0xFFFF
	text := s
	if strings.Count(s, "-") == 2 {
		head, rest, _ := strings.Cut(s, "-")
		n, err := strconv.ParseUint(head, 10, 16)
		if err != nil || n < 2000 || n > 2200 {
			p.wrong(key, "%q; want a date such as 12-25 or 2027-12-25", clip(s))
			return 0, 0, 0
		}
		year, text = uint16(n), rest
	}
	in := year
	if in == 0xFFFF {
		in = 2024 // which has a 29th of February
	}
	t, err := time.Parse("2006-01-02", fmt.Sprintf("%04d-%s", in, text))
	if err != nil {
		p.wrong(key, "%q; want a date such as 12-25 or 2027-12-25", clip(s))
		return 0, 0, 0
	}
	return year, uint8(t.Month()), uint8(t.Day())
}

func newSpecialDays(decode func(any) error) (Executor, error) {
	var with struct {
		Object  string `yaml:"object"`
		Replace bool   `yaml:"replace"`
		Days    []struct {
			Index int    `yaml:"index"`
			Date  string `yaml:"date"`
			Day   int    `yaml:"day"`
		} `yaml:"days"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	act := meter.SpecialDays{Object: objectOf(&p, "object", with.Object, 11), Replace: with.Replace}
	if len(with.Days) > mostSpecial || len(with.Days) == 0 && !with.Replace {
		p.wrong("days", "%d; want 1 to %d, or none with replace: true", len(with.Days), mostSpecial)
	}
	seen := map[int]bool{}
	for i, d := range with.Days {
		key := fmt.Sprintf("days[%d]", i)
		if d.Index < 0 || d.Index > 65535 || seen[d.Index] {
			p.wrong(key+".index", "%d; want numbers of 0 to 65535, each once", d.Index)
		}
		if seen[d.Index] = true; d.Day < 0 || d.Day > 255 {
			p.wrong(key+".day", "%d; want the number of a day profile, 0 to 255", d.Day)
		}
		year, month, day := p.date(key+".date", d.Date)
		act.Days = append(act.Days, meter.SpecialDay{Index: uint16(d.Index), Year: year, Month: month, Day: day, Profile: uint8(d.Day)})
	}
	return onMeter{act: act}, p.err()
}
