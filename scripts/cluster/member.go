package main

import (
	"context"
	"fmt"
)

// startMember starts a member of gridfog ingest and waits until it works.
func (r *running) startMember(ctx context.Context, i int) error {
	p, err := r.stage.start(fmt.Sprintf("ingest-%d", i+1), nil, r.fog, "ingest",
		"-broker", "mqtts://"+r.broker.addresses[i%len(r.broker.addresses)], "-ca", r.file("ca.pem"), "-cert", r.file("fog.pem"), "-key", r.file("fog.key"),
		"-database", r.url)
	if err != nil {
		return err
	}
	r.members = append(r.members, p)
	return p.says(ctx, "TODO")
}
