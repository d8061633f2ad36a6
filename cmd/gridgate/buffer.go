package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"gridgate/buffer"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

func bufferVerb() cli.Verb {
	return cli.Verb{
		Name: "buffer", Summary: "look at the readings that wait on flash, with no agent running",
		Args: "stat|dump|check",
		Example: []string{
			"gridgate buffer stat -path /var/lib/gridgate/buffer",
			"gridgate buffer dump -path /var/lib/gridgate/buffer -lane billing -json",
			"gridgate buffer check -path /var/lib/gridgate/buffer",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			dir := fs.String("path", "/var/lib/gridgate/buffer", "the buffer's `DIR`, buffer.path of the configuration")
			asJSON := fs.Bool("json", false, "print one JSON object a line")
			lane := fs.String("lane", "", "dump this `LANE` only: alarm, billing, interval or instant")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) != 1 || !slices.Contains([]string{"stat", "dump", "check"}, args[0]) {
					return cli.Usagef("buffer: want one of stat, dump, check")
				}
				var lanes []meter.Lane
				if *lane != "" {
					l, err := meter.ParseLane(*lane)
					if err != nil || args[0] != "dump" {
						return cli.Usagef("buffer %s: -lane %s: only dump takes a lane, and it is alarm, billing, interval or instant", args[0], *lane)
					}
					lanes = []meter.Lane{l}
				}
				out := bufio.NewWriter(env.Stdout)
				var err error
				switch args[0] {
				case "stat":
					err = bufferStat(out, *dir, *asJSON)
				case "dump":
					err = bufferDump(ctx, out, *dir, lanes, *asJSON)
				default:
					err = bufferCheck(out, *dir, *asJSON)
				}
				return errors.Join(err, out.Flush())
			}
		},
	}
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

func bufferStat(w io.Writer, dir string, asJSON bool) error {
	st, err := buffer.Inspect(dir)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(w)
		err := enc.Encode(storeJSON{
			st.Path, st.Format, fmt.Sprintf("%016x", st.Epoch), st.Boots, st.Clean, st.Commits, st.FileBytes, st.FreeBytes,
		})
		for _, l := range st.Lanes {
			err = errors.Join(err, enc.Encode(laneJSON{
				l.Lane.String(), l.First, l.Last, l.Acked, l.Rows, l.Chunks, l.Bytes, l.HotBytes, l.Holes, l.Lost,
			}))
		}
		return err
	}
	stopped := "cleanly"
	if !st.Clean {
		stopped = "uncleanly"
	}
	fmt.Fprintf(w, "%s: epoch %016x, format %d, %d boots, %d commits, stopped %s\n", st.Path, st.Epoch, st.Format, st.Boots, st.Commits, stopped)
	fmt.Fprintf(w, "file %d octets, %d of them free\n\n", st.FileBytes, st.FreeBytes)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "LANE\tFIRST\tLAST\tACKED\tROWS\tCHUNKS\tBYTES\tHOT\tHOLES\tLOST\t")
	for _, l := range st.Lanes {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n",
			l.Lane, l.First, l.Last, l.Acked, l.Rows, l.Chunks, l.Bytes, l.HotBytes, l.Holes, l.Lost)
	}
	return table.Flush()
}

func bufferDump(ctx context.Context, w *bufio.Writer, dir string, lanes []meter.Lane, asJSON bool) error {
	const format = "%-8s  %10s  %-12s  %-14s  %-22s  %-20s  %18s  %-6s  %s\n"
	if !asJSON {
		fmt.Fprintf(w, format, "LANE", "SEQUENCE", "METER", "SERIAL", "CHANNEL", "TIME", "VALUE", "UNIT", "QUALITY")
	}
	var line []byte
	return buffer.Dump(dir, lanes, func(sequence uint64, r meter.Row) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if asJSON {
			line = append(line[:0], `{"lane":"`...)
			line = append(append(line, r.Lane.String()...), `","sequence":`...)
			line = append(strconv.AppendUint(line, sequence, 10), ',')
			line = append(r.AppendJSONFields(line), '}', '\n')
			_, err := w.Write(line)
			return err
		}
		_, err := fmt.Fprintf(w, format, r.Lane, strconv.FormatUint(sequence, 10), r.Meter, r.Serial, r.Channel.Short(),
			r.Stamp.UTC().Format(time.RFC3339), r.Value, r.Unit, r.Quality)
		return err
	})
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

func bufferCheck(w io.Writer, dir string, asJSON bool) error {
	r, err := buffer.Check(dir)
	if err != nil {
		return err
	}
	if asJSON {
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
