package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

const natsNodes = 3

// newNATS prepares a cluster of three nodes. The server is the one that this
// module's go.mod names.
func newNATS(ctx context.Context, s *stage, configs, certs string, f fleet) (*broker, error) {
	dir, err := s.folder("nats")
	if err != nil {
		return nil, err
	}
	server, err := natsServer(ctx, filepath.Join(configs, "..", "..", "..", "scripts", "cluster"), dir)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nats.conf")
	if err := errors.Join(
		copyWith(filepath.Join(configs, "nats.conf"), conf),
		generate(ctx, filepath.Join(configs, "users.sh"), filepath.Join(dir, "users.conf"), f),
	); err != nil {
		return nil, err
	}
	ports, err := s.freePorts(4 * natsNodes)
	if err != nil {
		return nil, err
	}
	port := func(node, which int) int { return ports[4*node+which] }
	b := &broker{}
	monitors := make([]string, natsNodes)
	for node := range natsNodes {
		b.addresses = append(b.addresses, local(port(node, 0)))
		monitors[node] = local(port(node, 3))
	}
	b.start = func(ctx context.Context, node int) (*process, error) {
		name := fmt.Sprintf("node-%d", node+1)
		environment := func(c *exec.Cmd) {
			c.Env = append(os.Environ(), "NAME="+name, "DATA="+filepath.Join(dir, name),
				"BROKER_PEM="+filepath.Join(certs, "broker.pem"), "BROKER_KEY="+filepath.Join(certs, "broker.key"), "CA_PEM="+filepath.Join(certs, "ca.pem"),
				"MQTT="+local(port(node, 0)), "CLIENT="+local(port(node, 1)), "CLUSTER="+local(port(node, 2)))
			for i := range natsNodes {
				c.Env = append(c.Env, fmt.Sprintf("ROUTE_%d=nats://%s", i+1, local(port(i, 2))))
			}
		}
		p, err := s.start(name, environment, server, "-c", conf, "--addr", "127.0.0.1", "-m", fmt.Sprint(port(node, 3)))
		if err != nil {
			return nil, err
		}
		return p, p.listens(ctx, local(port(node, 0)))
	}
	b.settles = func(ctx context.Context) error {
		return await(ctx, "the nodes of NATS have a leader", func() bool { return ledBy(ctx, monitors) })
	}
	return b, nil
}

// natsServer builds the server, from the build cache when it is there.
func natsServer(ctx context.Context, module, dir string) (string, error) {
	path := filepath.Join(dir, "nats-server")
	_, err := output(ctx, func(c *exec.Cmd) { c.Dir = module; c.Env = append(os.Environ(), "CGO_ENABLED=0") },
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/nats-io/nats-server/v2")
	return path, err
}

// ledBy says whether the nodes agree on a leader of JetStream and all are there.
func ledBy(ctx context.Context, monitors []string) bool {
	leader := ""
	for _, address := range monitors {
		var said struct {
			Meta struct {
				Leader string `json:"leader"`
				Size   int    `json:"cluster_size"`
			} `json:"meta_cluster"`
		}
		if get(ctx, "http://"+address+"/jsz", &said) != nil || said.Meta.Leader == "" || said.Meta.Size != natsNodes ||
			leader != "" && leader != said.Meta.Leader {
			return false
		}
		leader = said.Meta.Leader
	}
	return true
}

func get(ctx context.Context, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return errors.Join(json.NewDecoder(resp.Body).Decode(v), resp.Body.Close())
}
