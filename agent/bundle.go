package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"gridgate/agent/bundle"
	"gridgate/agent/doctor"
	"gridgate/configs"
	"gridgate/drivers/address"
)

// bundleParts gives what only a running agent knows, as files of a support bundle.
func (a *Agent) bundleParts() map[string]string {
	parts := map[string]string{"log.jsonl": a.opts.Recent.String()}
	if stat, err := (look{a}).StatJSON(); err == nil {
		parts["buffer.json"] = string(stat)
	} else {
		parts["buffer.txt"] = err.Error()
	}
	if h, ok := a.state.AuditHead(); ok {
		parts["audit.json"] = fmt.Sprintf("{\"entries\":%d,\"head\":\"%s\"}\n", h.Number, h.Hash)
	}
	if orders, err := json.MarshalIndent(a.orders.current(), "", " "); err == nil {
		parts["orders.json"] = string(orders)
	}
	return parts
}

// Bundle writes a support bundle: what `gridgate doctor -bundle` writes, made by the
// agent itself, for whoever is not on site.
func (a *Agent) Bundle(ctx context.Context, w io.Writer) error {
	r := a.Report()
	o := doctor.Options{
		Version: a.opts.Version, ConfigPath: a.opts.ConfigPath, Getenv: a.opts.Getenv, Report: &r, Effective: EffectiveFile,
		Sources: func(*configs.Config) address.Sources { return a.sources() }, Secrets: SecretFindings(a.opts.Getenv, nil),
	}
	result := doctor.Run(ctx, o, func(doctor.Finding) {})
	return bundle.Write(w, time.Now(), result.Files(a.bundleParts()), result.Secrets())
}

// EffectiveFile gives the configuration that an agent started with this file runs,
// and its text.
func EffectiveFile(path string) (*configs.Config, string, error) {
	base, err := configs.Read(path)
	if err != nil {
		return nil, "", err
	}
	cfg, _, err := Effective(base)
	if err != nil {
		return nil, "", err
	}
	text, _, err := EffectiveText(base)
	return cfg, string(text), err
}
