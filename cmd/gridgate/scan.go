package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gridgate/agent"
	"gridgate/configs"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
	"gridgate/drivers/scan"
	"gridgate/internal/cli"
)

// scanFlags are the flags of scan.
type scanFlags struct {
	control, config, out, units, physical, protocol string
	json, all, force                                bool
	beyond, wait                                    time.Duration
}

func scanVerb() cli.Verb {
	return cli.Verb{
		Name: "scan", Summary: "find the meters on a line, or list the nodes of a power line", Args: "LINE-URL",
		Example: []string{
			"gridgate scan serial:///dev/ttyUSB0                               # Modbus, DLMS and IEC 62056-21, likely settings",
			"gridgate scan serial:///dev/ttyUSB0 -config-out found.yaml",
			"gridgate scan 'modbus+rtu:///dev/ttyUSB0?baud=19200' -units 1-247 # one protocol, one rate, all units",
			"gridgate scan modbus+rtu:///dev/ttyUSB0 -all                      # 247 units, 12 settings: says how long it takes",
			"gridgate scan dlms+hdlc:///dev/ttyUSB0 -physical 1000-1099",
			"gridgate scan modbus+tcp://10.0.0.7",
			"gridgate scan tcp://10.0.0.8:4001                                 # a serial server: whatever is behind it",
			"gridgate scan plc+prime://10.0.0.9 -for 10m -json",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f scanFlags
			fs.StringVar(&f.control, "control", "", "the control `SOCKET` of a running agent that the line is borrowed from\n(default: that of -config, or "+defaultControl+")")
			fs.BoolVar(&f.json, "json", false, "print one JSON object a meter or node")
			fs.BoolVar(&f.all, "all", false, "try everything: 247 units, 12 settings, all protocols; go on when meters are found")
			fs.StringVar(&f.units, "units", "", "the Modbus `UNITS` to try, as in 1-32,100 (default 1-32; with -all 1-247)")
			fs.StringVar(&f.physical, "physical", "", "the physical `ADDRESSES` of HDLC to try, as in 16-20,1000-1099 (default 1-32; with -all 1-127)")
			fs.StringVar(&f.protocol, "protocol", "", "try these `PROTOCOLS` only: some of modbus,dlms,iec21")
			fs.DurationVar(&f.wait, "wait", 0, "wait so long for each answer: for slow meters, lines and servers (default 0.1 s on a serial line, 0.4 s over TCP)")
			fs.StringVar(&f.out, "config-out", "", "write a configuration with what was found to this `FILE`; it is not overwritten without -force")
			fs.BoolVar(&f.force, "force", false, "with -config-out: overwrite")
			fs.StringVar(&f.config, "config", "", "the configuration `FILE` of this gateway; -config-out takes over its site and names, and leaves out its meters")
			fs.DurationVar(&f.beyond, "for", 0, "power line: listen for so long for nodes that join; without it until those are told that are there")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("scan: want one URL; `gridgate scan -h` shows examples")
				}
				return scanLine(ctx, env, f, args[0])
			}
		},
	}
}

func scanLine(ctx context.Context, env cli.Env, f scanFlags, url string) error {
	at, err := address.ParseBare(url)
	if err != nil {
		return wrongAddress("scan", err)
	}
	if f.control == "" {
		f.control = defaultControl
		if f.config != "" {
			if f.control, err = controlSocket("", f.config); err != nil {
				return fmt.Errorf("scan: %w", err)
			}
		}
	}
	if at.Scheme.IsPLC() {
		return scanNodes(ctx, env, f, at.Line)
	}
	cfg, err := f.plan(at)
	if err != nil {
		return err
	}
	var out *fragment
	if f.out != "" {
		if out, err = newFragment(f.out, f.config, f.force, at); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	giveBack, shared, err := lent(ctx, f.control, at.Line.Line)
	if err != nil {
		return err
	}
	defer giveBack()
	cfg.Line = drivers.OpenLine(at.Line, line.Options{Program: "gridgate scan", Shared: shared})
	s, err := runScan(ctx, env, cfg, at)
	if cerr := cfg.Line.Close(); err == nil {
		err = cerr
	}
	if perr := printFound(env, f.json, at, s.Found()); err == nil {
		err = perr
	}
	for _, n := range s.Notes() {
		fmt.Fprintf(env.Stderr, "gridgate: scan: %s\n", n)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("scan: interrupted; %s so far", count(len(s.Found()), "meter"))
	case err != nil:
		return fmt.Errorf("scan: %w", advised(err))
	case len(s.Found()) == 0:
		fmt.Fprintf(env.Stderr, "gridgate: scan: no meter found on %s: is it on, are A and B wired right? -all tries more, -wait 300ms is for slow ones\n", at.Line.Line)
	}
	if out == nil {
		return nil
	}
	if err := out.write(s.Found()); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	fmt.Fprintf(env.Stderr, "gridgate: scan: %s written; `gridgate check -config %s` checks it\n", f.out, f.out)
	return nil
}

// plan says what to scan for.
func (f scanFlags) plan(at address.Bare) (cfg scan.Config, err error) {
	if cfg.Protocols, err = f.protocols(at); err != nil {
		return cfg, err
	}
	units, physical := "1-32", "1-32"
	if f.all || at.Scheme == address.ModbusTCP {
		units, physical = "1-247", "1-127"
	}
	if f.units != "" {
		units = f.units
	}
	if f.physical != "" {
		physical = f.physical
	}
	u, err := numberList(units, 247)
	if err != nil {
		return cfg, cli.Usagef("scan: -units: %v", err)
	}
	for _, n := range u {
		cfg.Units = append(cfg.Units, uint8(n))
	}
	if cfg.Physical, err = numberList(physical, 1<<14-1); err != nil {
		return cfg, cli.Usagef("scan: -physical: %v", err)
	}
	if f.wait < 0 || f.wait > time.Minute {
		return cfg, cli.Usagef("scan: -wait %v: want up to 1m", f.wait)
	}
	if at.Line.IsSerial() {
		cfg.Settings = settingsOf(at, f.all)
	}
	cfg.All, cfg.Wait, cfg.Now = f.all, f.wait, now
	for _, name := range configs.ModelNames() {
		m, err := configs.ModelIn(configs.DefaultModels, name)
		if err != nil {
			return cfg, fmt.Errorf("scan: %w", err)
		}
		cfg.Models = append(cfg.Models, m)
	}
	return cfg, nil
}

// settingsOf gives the settings to try: those of the address, or the usual ones.
func settingsOf(at address.Bare, all bool) (list []line.Settings) {
	usual := scan.LikelySettings()
	if all {
		usual = scan.AllSettings()
	}
	a := at.Line
	seen := map[line.Settings]bool{}
	for _, s := range usual {
		if at.HasBaud {
			s.Baud = a.Baud
		}
		if at.HasFormat {
			s.DataBits, s.Parity, s.StopBits = a.DataBits, a.Parity, a.StopBits
		}
		if !seen[s] {
			list = append(list, s)
		}
		seen[s] = true
	}
	return list
}

// protocols gives what the address and -protocol leave to try.
func (f scanFlags) protocols(at address.Bare) (list []scan.Protocol, err error) {
	serial := at.Line.IsSerial()
	switch at.Scheme {
	case "":
		list = []scan.Protocol{scan.ModbusTCP, scan.Wrapper, scan.ModbusRTUOverTCP, scan.HDLC, scan.IEC21}
		if strings.HasSuffix(at.Line.Line, ":4059") {
			list[0], list[1] = list[1], list[0]
		}
		if serial {
			list = []scan.Protocol{scan.ModbusRTU, scan.HDLC, scan.IEC21}
		}
	case address.ModbusRTU, address.ModbusTCP, address.ModbusRTUOverTCP, address.DLMSHDLC, address.DLMSWrapper, address.IEC21:
		list = []scan.Protocol{scan.Protocol(at.Scheme)}
	case address.DLMSUDP, address.DLMSModeE, address.PLCGateway, address.PLCPrime, address.PLCG3:
		return nil, cli.Usagef("scan: %s: such a line is not scanned: want serial, tcp, modbus+…, dlms+hdlc, dlms+wrapper, iec21 or plc+prime", at.Scheme)
	}
	if f.protocol == "" {
		return list, nil
	}
	var some []scan.Protocol
	for name := range strings.SplitSeq(f.protocol, ",") {
		known := map[string]string{"modbus": "modbus+", "dlms": "dlms+", "iec21": "iec21"}[name]
		if known == "" {
			return nil, cli.Usagef("scan: -protocol %q: want some of modbus,dlms,iec21", f.protocol)
		}
		for _, p := range list {
			if strings.HasPrefix(string(p), known) {
				some = append(some, p)
			}
		}
	}
	if len(some) == 0 {
		return nil, cli.Usagef("scan: -protocol %s: not with %s", f.protocol, at.Scheme)
	}
	return some, nil
}

// numberList reads numbers and ranges from 1 to most: 1-32,100.
func numberList(text string, most uint16) (list []uint16, err error) {
	seen := make(map[uint16]bool)
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, ferr := strconv.ParseUint(low, 10, 16)
		to, terr := strconv.ParseUint(high, 10, 16)
		if ferr != nil || terr != nil || from < 1 || to > uint64(most) || from > to {
			return nil, fmt.Errorf("%q: want numbers and ranges from 1 to %d, as in 1-32,100", part, most)
		}
		for n := uint16(from); n <= uint16(to); n++ {
			if !seen[n] {
				list = append(list, n)
			}
			seen[n] = true
		}
	}
	return list, nil
}

// runScan scans, and shows how far it is.
func runScan(ctx context.Context, env cli.Env, cfg scan.Config, at address.Bare) (*scan.Scan, error) {
	p := newProgress(env)
	cfg.Tell = p.tell
	s := scan.New(cfg)
	p.begin(s, at.Line.Line)
	err := s.Run(ctx)
	p.end()
	return s, err
}

// printFound prints a table for people, or JSON.
func printFound(env cli.Env, asJSON bool, at address.Bare, found []scan.Found) error {
	if asJSON {
		out := json.NewEncoder(env.Stdout)
		out.SetEscapeHTML(false)
		for i := range found {
			if err := out.Encode(shownFound(at, &found[i])); err != nil {
				return err
			}
		}
		return nil
	}
	if len(found) == 0 {
		return nil
	}
	out := bufio.NewWriter(env.Stdout)
	const format = "%-18s  %-11s  %-16s  %-18s  %-24s  %s\n"
	fmt.Fprintf(out, format, "PROTOCOL", "SETTINGS", "ADDRESS", "SERIAL", "MODEL", "NOTE")
	for i := range found {
		f := &found[i]
		settings := "-"
		if f.Settings.Baud > 0 {
			settings = f.Settings.String()
		}
		note := f.Note
		if f.Says != "" {
			note = strings.TrimSuffix(fmt.Sprintf("%q; %s", f.Says, note), "; ")
		}
		fmt.Fprintf(out, format, f.Protocol, settings, f.Address(), dash(f.Serial), dash(strings.Join(append([]string{f.Model}, f.Or...), " or ")), note)
	}
	return out.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// foundJSON is a meter for scripts. Fields that it has nothing for are left out.
type foundJSON struct {
	Protocol string   `json:"protocol"`
	Line     string   `json:"line"`
	Settings string   `json:"settings,omitempty"`
	Unit     int      `json:"unit,omitempty"`
	Client   int      `json:"client,omitempty"`
	Server   int      `json:"server,omitempty"`
	Physical int      `json:"physical,omitempty"`
	AddrLen  int      `json:"addrlen,omitempty"`
	Serial   string   `json:"serial,omitempty"`
	Model    string   `json:"model,omitempty"`
	Or       []string `json:"or,omitempty"` // models that fit as well
	Says     string   `json:"says,omitempty"`
	Note     string   `json:"note,omitempty"`
	URL      string   `json:"url"` // for read; of Modbus only with a model
}

func shownFound(at address.Bare, f *scan.Found) foundJSON {
	j := foundJSON{
		Protocol: string(f.Protocol), Line: at.Line.Line, Unit: int(f.Unit), Client: int(f.Client), Server: int(f.Server),
		Physical: int(f.Physical), AddrLen: int(f.AddrLen), Serial: f.Serial, Model: f.Model, Or: f.Or, Says: f.Says, Note: f.Note,
		URL: foundAddress(at, f).String(),
	}
	if f.Settings.Baud > 0 {
		j.Settings = f.Settings.String()
	}
	return j
}

// foundAddress gives the address by which a meter is read.
func foundAddress(at address.Bare, f *scan.Found) address.Address {
	a := address.Address{Scheme: address.Scheme(f.Protocol), Line: at.Line.Line, RS485: at.Line.RS485, Model: f.Model}
	switch {
	case a.Scheme == address.IEC21 && f.Settings.Baud > 0:
		a.SignOn, a.DataBits, a.Parity, a.StopBits = f.Settings.Baud, f.Settings.DataBits, f.Settings.Parity, f.Settings.StopBits
	case a.Scheme != address.IEC21:
		a.Baud, a.DataBits, a.Parity, a.StopBits = f.Settings.Baud, f.Settings.DataBits, f.Settings.Parity, f.Settings.StopBits
	}
	if a.Unit = f.Unit; a.Scheme.IsDLMS() {
		a.Client, a.Server, a.Physical, a.AddrLen = f.Client, f.Server, f.Physical, f.AddrLen
		a.Security.Protection = address.Unprotected
	}
	return a
}

// scanNodes lists the nodes of a power line.
func scanNodes(ctx context.Context, env cli.Env, f scanFlags, addr address.Address) (err error) {
	if addr.Scheme != address.PLCPrime {
		return cli.Usagef("scan: %s: such a bridge has no list of its nodes; `gridgate status` shows those that the agent reads", addr.Scheme)
	}
	giveBack, err := borrow(ctx, f.control, addr.Line)
	if err != nil {
		return err
	}
	defer giveBack()
	b := drivers.OpenBridge(addr, line.Options{Program: "gridgate scan"}, false, nil)
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.List(ctx, f.beyond); err != nil {
		return fmt.Errorf("scan: line %s: %w", addr.Line, err)
	}
	nodes := agent.Nodes(b.Table(), nil)
	if !f.json {
		return printNodes(env.Stdout, nodes, time.Now())
	}
	out := json.NewEncoder(env.Stdout)
	for i := range nodes {
		if err := out.Encode(nodes[i]); err != nil {
			return err
		}
	}
	return nil
}
