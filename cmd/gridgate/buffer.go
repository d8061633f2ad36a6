package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"gridgate/buffer"
	"gridgate/internal/cli"
)

// bufferFlags are the flags of all that `gridgate buffer` does.
type bufferFlags struct {
	dir, lane, meter, channel, from, to, zone string
	site, gateway, control                    string
	asJSON, asCSV, waiting, all               bool

	getenv func(string) string
	open   bool // an agent has it open, and was asked
}

// bufferCommands are what `gridgate buffer` does, in the order of its help.
func bufferCommands() []bufferDoes {
	return []bufferDoes{
		{"stat", 0, []string{"control"}, bufferStat},
		{"dump", 0, []string{"lane", "csv", "control"}, bufferQuery},
		{"check", 0, nil, bufferCheck},
		{"query", 0, []string{"lane", "csv", "meter", "channel", "from", "to", "zone", "control"}, bufferQuery},
		{"export", 1, []string{"site", "gateway", "waiting", "control"}, bufferExport},
		{"import", 1, []string{"all"}, bufferImport},
		{"compact", 0, nil, bufferCompact},
	}
}

// bufferDoes is one of them.
type bufferDoes struct {
	name  string
	args  int
	flags []string // that not all of them take
	do    func(ctx context.Context, out *bufio.Writer, f *bufferFlags, args []string) error
}

func bufferVerb() cli.Verb {
	return cli.Verb{
		Name: "buffer", Summary: "look at the readings that are kept on flash",
		Args: "stat|dump|check|query|export FILE|import FILE|compact",
		Example: []string{
			"gridgate buffer stat -path /var/lib/gridgate/buffer",
			"gridgate buffer dump -lane billing -json",
			"gridgate buffer check",
			"gridgate buffer query -meter m17 -channel 1-0:1.8.0 -from 2026-03-01 -to 2026-03-02 -csv",
			"gridgate buffer export /media/usb/gw-1.ggex     # gridfog decode reads it",
			"gridgate buffer import /media/usb/gw-1.ggex     # what was not acknowledged, with new numbers",
			"gridgate buffer compact",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			f := &bufferFlags{}
			fs.StringVar(&f.dir, "path", "/var/lib/gridgate/buffer", "the buffer's `DIR`, buffer.path of the configuration")
			fs.StringVar(&f.control, "control", defaultControl,
				"stat, dump, query, export: the control `SOCKET` of the agent\nthat is asked when one has the buffer open")
			fs.BoolVar(&f.asJSON, "json", false, "print one JSON object a line")
			fs.BoolVar(&f.asCSV, "csv", false, "dump, query: print comma separated values")
			fs.StringVar(&f.lane, "lane", "", "dump, query: this `LANE` only: alarm, billing, interval or instant")
			fs.StringVar(&f.meter, "meter", "", "query: readings of this `METER`")
			fs.StringVar(&f.channel, "channel", "", "query: readings of this `CHANNEL`, such as 1-0:1.8.0")
			fs.StringVar(&f.from, "from", "", "query: readings of this `TIME` or later: a date, whose midnight it is, or RFC 3339")
			fs.StringVar(&f.to, "to", "", "query: readings before this `TIME`")
			fs.StringVar(&f.zone, "zone", "UTC", "query: whose midnights dates are, a `ZONE` of the IANA data base")
			fs.StringVar(&f.site, "site", "", "export: the `SITE` to name in the file")
			fs.StringVar(&f.gateway, "gateway", "", "export: the `GATEWAY` to name in the file")
			fs.BoolVar(&f.waiting, "waiting", false, "export: only what is not acknowledged")
			fs.BoolVar(&f.all, "all", false, "import: what was acknowledged too")
			return func(ctx context.Context, env cli.Env, args []string) error { return f.run(ctx, env, fs, args) }
		},
	}
}

func (f *bufferFlags) run(ctx context.Context, env cli.Env, fs *flag.FlagSet, args []string) error {
	var names []string
	var found *bufferDoes
	for _, d := range bufferCommands() {
		names = append(names, d.name)
		if len(args) > 0 && d.name == args[0] {
			found = &d
		}
	}
	if found == nil {
		return cli.Usagef("buffer: want one of %s", strings.Join(names, ", "))
	}
	if args = args[1:]; len(args) != found.args {
		return cli.Usagef("buffer %s: takes %d arguments: %q", found.name, found.args, args)
	}
	var wrong []string
	fs.Visit(func(given *flag.Flag) {
		if given.Name != "path" && given.Name != "json" && !slices.Contains(found.flags, given.Name) {
			wrong = append(wrong, "-"+given.Name)
		}
	})
	if len(wrong) > 0 {
		return cli.Usagef("buffer %s: does not take %s", found.name, strings.Join(wrong, ", "))
	}
	f.getenv = env.Getenv
	out := bufio.NewWriter(env.Stdout)
	return errors.Join(found.do(ctx, out, f, args), out.Flush())
}

// storeJSON and laneJSON are the lines of `buffer stat -json`.
type storeJSON struct {
	Path    string `json:"path"`
	Format  uint32 `json:"format"`
	Epoch   string `json:"epoch"` // 16 hexadecimal digits
	Boots   uint32 `json:"boots"`
	Clean   bool   `json:"clean"`
	Commits uint64 `json:"commits"`
	Bytes   int64  `json:"bytes"`
	Free    int64  `json:"free"`
}

type laneJSON struct {
	Lane   string `json:"lane"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Acked  uint64 `json:"acked"`
	Rows   uint64 `json:"rows"`
	Chunks uint64 `json:"chunks"`
	Bytes  uint64 `json:"bytes"`
	Hot    uint64 `json:"hot"`
	Holes  uint64 `json:"holes"`
	Lost   uint64 `json:"lost"`
}

// droppedJSON is a line for each channel of which rows were given up.
type droppedJSON struct {
	Meter   string `json:"meter"`
	Channel string `json:"channel"`
	Dropped uint64 `json:"dropped"`
}

func bufferStat(ctx context.Context, w *bufio.Writer, f *bufferFlags, _ []string) error {
	st, dropped, err := f.stat(ctx)
	if err != nil {
		return err
	}
	if f.asJSON {
		enc := json.NewEncoder(w)
		err := enc.Encode(storeJSON{
			st.Path, st.Format, fmt.Sprintf("%016x", st.Epoch), st.Boots, st.Clean, st.Commits, st.FileBytes, st.FreeBytes,
		})
		for _, l := range st.Lanes {
			err = errors.Join(err, enc.Encode(laneJSON{
				l.Lane.String(), l.First, l.Last, l.Acked, l.Rows, l.Chunks, l.Bytes, l.HotBytes, l.Holes, l.Lost,
			}))
		}
		for _, d := range dropped {
			err = errors.Join(err, enc.Encode(droppedJSON{string(d.Meter), string(d.Channel), d.Rows}))
		}
		return err
	}
	stopped := "stopped cleanly"
	switch {
	case f.open:
		stopped = "open"
	case !st.Clean:
		stopped = "stopped uncleanly"
	}
	fmt.Fprintf(w, "%s: epoch %016x, format %d, %d boots, %d commits, %s\n", st.Path, st.Epoch, st.Format, st.Boots, st.Commits, stopped)
	fmt.Fprintf(w, "file %d octets, %d of them free\n\n", st.FileBytes, st.FreeBytes)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "LANE\tFIRST\tLAST\tACKED\tROWS\tCHUNKS\tBYTES\tHOT\tHOLES\tLOST\t")
	for _, l := range st.Lanes {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n",
			l.Lane, l.First, l.Last, l.Acked, l.Rows, l.Chunks, l.Bytes, l.HotBytes, l.Holes, l.Lost)
	}
	if err := table.Flush(); err != nil || len(dropped) == 0 {
		return err
	}
	fmt.Fprint(w, "\ngiven up undelivered, to keep within the size\n")
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "METER\tCHANNEL\tROWS")
	for _, d := range dropped {
		if d.Meter == "" && d.Channel == "" {
			d.Meter, d.Channel = "others", "others"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\n", d.Meter, d.Channel.Short(), d.Rows)
	}
	return table.Flush()
}

// checkJSON is what `buffer check -json` prints.
type checkJSON struct {
	Path     string   `json:"path"`
	Sound    bool     `json:"sound"`
	Pages    uint64   `json:"pages"`
	Free     uint64   `json:"free"`
	Leaked   uint64   `json:"leaked"`
	Chunks   uint64   `json:"chunks"`
	Rows     uint64   `json:"rows"`
	Holes    uint64   `json:"holes"`
	Problems []string `json:"problems"`
}

func bufferCheck(_ context.Context, w *bufio.Writer, f *bufferFlags, _ []string) error {
	r, err := buffer.Check(f.dir)
	if err != nil {
		return err
	}
	if f.asJSON {
		err = json.NewEncoder(w).Encode(checkJSON{
			r.Path, r.Sound(), r.Pages, r.FreePages, r.LeakedPages, r.Chunks, r.Rows, r.Holes, append([]string{}, r.Problems...),
		})
	} else {
		for _, p := range r.Problems {
			fmt.Fprintln(w, p)
		}
		_, err = fmt.Fprintf(w, "%s: %d pages, %d free, %d leaked; %d chunks, %d rows, %d holes\n",
			r.Path, r.Pages, r.FreePages, r.LeakedPages, r.Chunks, r.Rows, r.Holes)
	}
	if !r.Sound() {
		err = errors.Join(err, fmt.Errorf("buffer %s: damaged: %d problems; the agent moves the file aside at its next start when it cannot be read, and declares lost chunks as holes",
			r.Path, len(r.Problems)))
	}
	return err
}
