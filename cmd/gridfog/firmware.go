package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gridgate/internal/cli"
)

func firmwareVerb() cli.Verb {
	return cli.Verb{
		Name:    "firmware",
		Summary: "pack firmware for signing, roll it out in waves, take it back, and show who has what",
		Args:    "pack|publish|status|withdraw [DOCUMENT…]",
		Example: []string{
			"gridfog firmware pack -board virt-armv7=slot/ -board linux-arm64=gridgate -firmware 1.4.0 -target north/_group/canary -version 12 -objects objects >canary.yaml",
			"gridfog sign -key firmware.key -out canary.doc canary.yaml",
			"gridfog firmware publish -broker mqtts://fog.example -ca ca.pem -cert me.pem -key me.key -objects objects \\\n      -wave canary.doc -wave west.doc,east.doc -max-failures 1 -max-pending 5% -wait 24h",
			"gridfog firmware status -broker mqtts://fog.example … -site north",
			"gridfog firmware withdraw -broker mqtts://fog.example … -objects objects canary.doc",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			p := &packing{}
			r := newRollout()
			r.flags(fs, "mqtt://127.0.0.1:1883")
			p.flags(fs)
			fs.StringVar(&r.objects, "objects", "", "the `DIR` of what gateways fetch: pack writes there, publish and withdraw read it")
			fs.Func("wave", "publish: signed `DOCUMENTS`, with commas between, whose gateways have to end well before the next wave; may be repeated,\ndocuments without it are the last wave", r.addWave)
			fs.IntVar(&r.maxFailures, "max-failures", 0, "publish: stop when more than `N` gateways of a wave have refused it, gone back, or are broken")
			fs.Func("max-pending", "publish: go on to the next wave when no more than `N` gateways of one, or N% of them, have been silent for -wait (0)", r.setPending)
			fs.DurationVar(&r.wait, "wait", 24*time.Hour, "publish: wait so long for the next word of a gateway; 0 waits for nobody, and then there is one wave")
			fs.Int64Var(&r.rate, "rate", 0, "publish: send at most so many `OCTETS` a second to the broker")
			fs.StringVar(&r.membersFile, "members", "", "publish, status: a `FILE` of gateways to expect, as gridfog broker -access has it; without it those of a group\nare known by their own word")
			fs.StringVar(&r.trustFile, "trust", "", "publish: verify the documents by this trust document, a `FILE`, before anything is published")
			fs.BoolVar(&r.again, "again", false, "publish: send the parts also where the broker seems to have them")
			fs.StringVar(&r.site, "site", "", "status: this `SITE` only")
			fs.BoolVar(&r.json, "json", false, "publish, status: print one JSON object a gateway")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) == 0 || !slices.Contains([]string{"pack", "publish", "status", "withdraw"}, args[0]) {
					return cli.Usagef("firmware: want pack, publish, status or withdraw")
				}
				what, rest := args[0], args[1:]
				if err := fits(fs, what); err != nil {
					return err
				}
				p.objects = r.objects
				switch what {
				case "pack":
					return p.run(ctx, env, rest)
				case "status":
					return r.status(ctx, env, rest)
				case "withdraw":
					return r.withdraw(ctx, env, rest)
				}
				return r.publish(ctx, env, rest)
			}
		},
	}
}

// fits refuses flags that another verb of firmware has: who gives them expects
// something of them.
func fits(fs *flag.FlagSet, what string) (err error) {
	const broker = " broker ca cert key user password-file "
	has := map[string]string{
		"pack":     " board firmware target version minimum url part downgrade not-before not-after min-agent objects ",
		"publish":  broker + "objects wave max-failures max-pending wait rate members trust again json ",
		"status":   broker + "site members json ",
		"withdraw": broker + "objects ",
	}
	fs.Visit(func(f *flag.Flag) {
		if err == nil && !strings.Contains(has[what], " "+f.Name+" ") {
			err = cli.Usagef("firmware %s: it has no -%s", what, f.Name)
		}
	})
	return err
}

// allowance is a number of gateways, or a share of them.
type allowance struct {
	n       int
	percent bool
}

func (a allowance) String() string {
	if a.percent {
		return fmt.Sprintf("%d%%", a.n)
	}
	return strconv.Itoa(a.n)
}

// of gives how many of all it allows.
func (a allowance) of(all int) int {
	if a.percent {
		return all * a.n / 100
	}
	return a.n
}

func parseAllowance(s string) (allowance, error) {
	digits, percent := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || percent && n > 100 {
		return allowance{}, fmt.Errorf("%q; want a number such as 3, or a share such as 5%%", s)
	}
	return allowance{n, percent}, nil
}
