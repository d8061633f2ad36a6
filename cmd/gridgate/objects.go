package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

func objectsVerb() cli.Verb {
	return cli.Verb{
		Name: "objects", Summary: "list the objects that a DLMS meter has", Args: "URL",
		Example: []string{
			"gridgate objects 'dlms+wrapper://10.0.0.7:4059?client=17&auth=lls&password=12345678'",
			"gridgate objects dlms+wrapper://10.0.0.7 -json",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f meterFlags
			f.set(fs)
			asJSON := fs.Bool("json", false, "print one JSON object an object")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("objects: want one URL; `gridgate objects -h` shows examples")
				}
				addr, err := cosemAddress("objects", args[0])
				if err != nil {
					return err
				}
				return printObjects(ctx, env, f.target(addr), *asJSON)
			}
		},
	}
}

// meterFlags are the flags of verbs that speak with one meter.
type meterFlags struct {
	control, counters string
	force             bool
}

func (f *meterFlags) set(fs *flag.FlagSet) {
	fs.StringVar(&f.control, "control", defaultControl, "the control `SOCKET` of a running agent that the line is borrowed from")
	socketOf(fs, &f.control)
	fs.StringVar(&f.counters, "counters", "", "the `DIR` with the invocation counters of meters with keys\n(default: the agent's, or ~/.local/state/gridgate)")
	fs.BoolVar(&f.force, "force", false, forceHelp)
}

func (f *meterFlags) target(addr address.Address) target {
	return target{id: "meter", addr: addr, zone: time.UTC, control: f.control, counters: f.counters, force: f.force}
}

// cosemAddress reads the address of a meter that has objects.
func cosemAddress(verb, text string) (address.Address, error) {
	addr, err := address.Parse(text)
	if err != nil {
		return addr, wrongAddress(verb, err)
	}
	if !addr.Scheme.IsDLMS() {
		return addr, cli.Usagef("%s: %s: such a meter has no DLMS objects: `gridgate read URL` reads all its registers", verb, addr.Scheme)
	}
	return addr, nil
}

// withCOSEM is target.with for a meter that has objects.
func (t target) withCOSEM(ctx context.Context, env cli.Env, verb string, do func(*cosem.Meter) error) error {
	err := t.with(ctx, env, verb, func(v meter.Visitor) error {
		m, ok := v.(*cosem.Meter)
		if !ok {
			return fmt.Errorf("%s: such a meter has no DLMS objects", t.addr.Scheme)
		}
		return do(m)
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return err
}

func printObjects(ctx context.Context, env cli.Env, t target, asJSON bool) error {
	return t.withCOSEM(ctx, env, "objects", func(m *cosem.Meter) error {
		objects, err := m.Objects(ctx)
		if err != nil {
			return err
		}
		out := bufio.NewWriter(env.Stdout)
		if !asJSON {
			fmt.Fprintf(out, objectFormat, "OBIS", "CLASS", "NAME", "VERSION", "READABLE")
		}
		for _, o := range objects {
			if asJSON {
				_, _ = out.Write(appendObject(out.AvailableBuffer(), o)) // flush tells
				continue
			}
			readable := "not told"
			if o.HasRights {
				readable = numbers(o.Readable, " ")
			}
			fmt.Fprintf(out, objectFormat, o.Code.Short(), strconv.Itoa(int(o.Class)), o.ClassName(), strconv.Itoa(int(o.Version)), readable)
		}
		return out.Flush()
	})
}

const objectFormat = "%-20s  %5s  %-24s  %7s  %s\n"

// appendObject appends an object as a line of JSON:
//
//	{"obis":"1-0:1.8.0*255","class":3,"name":"register","version":0,"readable":[1,2,3]}
//
// readable is null where the meter does not tell.
func appendObject(b []byte, o cosem.Object) []byte {
	b = meter.AppendJSONString(append(b, `{"obis":`...), o.Code.String())
	b = strconv.AppendUint(append(b, `,"class":`...), uint64(o.Class), 10)
	b = meter.AppendJSONString(append(b, `,"name":`...), o.ClassName())
	b = strconv.AppendUint(append(b, `,"version":`...), uint64(o.Version), 10)
	b = append(b, `,"readable":`...)
	if !o.HasRights {
		return append(b, "null}\n"...)
	}
	return append(b, "["+numbers(o.Readable, ",")+"]}\n"...)
}

func numbers(ids []int8, between string) string {
	text := make([]string, len(ids))
	for i, id := range ids {
		text[i] = strconv.Itoa(int(id))
	}
	return strings.Join(text, between)
}
