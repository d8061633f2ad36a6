package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// broker is what gateways and the fog speak MQTT to: one process or more.
type broker struct {
	name      string
	addresses []string // HOST:PORT, one a node
	nodes     []*process
	start     func(ctx context.Context, node int) (*process, error)
	// settles waits until nodes that were started anew take part; nil is at once.
	settles func(ctx context.Context) error
}

// kill ends a node as a power cut does.
func (b *broker) kill(node int) { b.nodes[node].kill() }

// restart starts a node again that was killed.
func (b *broker) restart(ctx context.Context, node int) (err error) {
	b.nodes[node], err = b.start(ctx, node)
	return err
}

// startBroker starts one of the brokers of docs/fog.md with the files of
// configs/fog, changed in nothing but paths, addresses and the user.
func startBroker(ctx context.Context, s *stage, kind, configs string, f fleet) (*broker, error) {
	certs, err := certify(ctx, s, configs, f)
	if err != nil {
		return nil, err
	}
	var b *broker
	switch kind {
	case "nats":
		b, err = newNATS(ctx, s, filepath.Join(configs, "nats"), certs, f)
	case "mosquitto":
		b, err = newMosquitto(s, filepath.Join(configs, "mosquitto"), certs)
	case "rabbitmq":
		b, err = newRabbitMQ(ctx, s, filepath.Join(configs, "rabbitmq"), certs, f)
	default:
		return nil, fmt.Errorf("broker %q: want nats, mosquitto or rabbitmq", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	b.name = kind
	for node := range b.addresses {
		p, err := b.start(ctx, node)
		if err != nil {
			return nil, err
		}
		b.nodes = append(b.nodes, p)
	}
	if b.settles != nil {
		err = b.settles(ctx)
	}
	return b, err
}

// names gives SITE/GATEWAY of all gateways.
func (f fleet) names() []string {
	var all []string
	for i := range f.Gateways {
		all = append(all, fmt.Sprintf("%s/%s", f.site(i), f.gateway(i)))
	}
	return all
}

// certify makes all certificates with the operator's script.
func certify(ctx context.Context, s *stage, configs string, f fleet) (string, error) {
	dir, err := s.folder("certs")
	if err != nil {
		return "", err
	}
	script := filepath.Join(configs, "certificates.sh")
	for _, args := range [][]string{{"broker", "127.0.0.1", "localhost"}, {"fog", "fog"}, append([]string{"gateway"}, f.names()...)} {
		if _, err := output(ctx, nil, script, append([]string{dir}, args...)...); err != nil {
			return "", err
		}
	}
	// Brokers that run as a user of their own read the key too.
	return dir, os.Chmod(filepath.Join(dir, "broker.key"), 0o644) //nolint:gosec // a trial's
}

// generate makes a list of users with one of the operator's scripts.
func generate(ctx context.Context, script, file string, f fleet) error {
	b, err := output(ctx, func(c *exec.Cmd) { c.Stdin = strings.NewReader(strings.Join(f.names(), "\n") + "\n") }, script, "fog")
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644) //nolint:gosec // as in certify
}

// copyWith copies a file with parts of it replaced, each of which must be there.
func copyWith(from, to string, replace ...string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	text := string(b)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			return fmt.Errorf("%s: %q is not in it", from, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return os.WriteFile(to, []byte(text), 0o644) //nolint:gosec // as in certify
}

// freePorts gives n ports that are free, of those that neither the system nor
// the project's other tests take, and keeps other stages off them by locks on
// files of their names.
func (s *stage) freePorts(n int) ([]int, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("gridgate-cluster-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var ports []int
	for range 1000 {
		port := 4000 + rand.IntN(6000)
		lock, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil || !isFree(port) {
			_ = lock.Close()
			continue
		}
		s.mu.Lock()
		s.locks = append(s.locks, lock)
		s.mu.Unlock()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports")
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", local(port))
	return err == nil && l.Close() == nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// listens waits until a process takes connections.
func (p *process) listens(ctx context.Context, address string) error {
	return p.until(ctx, "it listens on "+address, func() bool {
		c, err := net.Dial("tcp", address) //nolint:noctx // on the loopback device
		return err == nil && c.Close() == nil
	})
}

func newMosquitto(s *stage, configs, certs string) (*broker, error) {
	dir, err := s.folder("mosquitto")
	if err != nil {
		return nil, err
	}
	ports, err := s.freePorts(1)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "mosquitto.conf")
	err = errors.Join(
		copyWith(filepath.Join(configs, "acl"), filepath.Join(dir, "acl")),
		copyWith(filepath.Join(configs, "mosquitto.conf"), conf,
			"listener 8883", fmt.Sprintf("user root\nlistener %d 127.0.0.1", ports[0]),
			"/etc/mosquitto/gridgate/acl", filepath.Join(dir, "acl"),
			"/etc/mosquitto/gridgate/", certs+"/", "/var/lib/mosquitto/", dir+"/"))
	if err != nil {
		return nil, err
	}
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not on every user's path
	}
	start := func(ctx context.Context, _ int) (*process, error) {
		p, err := s.start("mosquitto", nil, path, "-c", conf)
		if err != nil {
			return nil, err
		}
		return p, p.listens(ctx, local(ports[0]))
	}
	return &broker{addresses: []string{local(ports[0])}, start: start}, nil
}

func newRabbitMQ(ctx context.Context, s *stage, configs, certs string, f fleet) (*broker, error) {
	dir, err := s.folder("rabbitmq")
	if err != nil {
		return nil, err
	}
	ports, err := s.freePorts(3)
	if err != nil {
		return nil, err
	}
	definitions := filepath.Join(dir, "definitions.json")
	err = errors.Join(
		generate(ctx, filepath.Join(configs, "definitions.sh"), definitions, f),
		copyWith(filepath.Join(configs, "enabled_plugins"), filepath.Join(dir, "enabled_plugins")),
		copyWith(filepath.Join(configs, "rabbitmq.conf"), filepath.Join(dir, "rabbitmq.conf"),
			"ssl.default = 8883", "ssl.default = "+local(ports[0]),
			"/etc/rabbitmq/gridgate/definitions.json", definitions, "/etc/rabbitmq/gridgate/", certs+"/"))
	if err != nil {
		return nil, err
	}
	environment := func(c *exec.Cmd) {
		c.Dir = dir
		c.Env = append(os.Environ(), "HOME="+dir, "RABBITMQ_NODENAME=gridgate@localhost", "RABBITMQ_CONF_ENV_FILE=/dev/null",
			"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "enabled_plugins"),
			"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE="+dir, "RABBITMQ_LOGS=-",
			"RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"), "RABBITMQ_FEATURE_FLAGS_FILE="+filepath.Join(dir, "flags"),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
			fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[1]), fmt.Sprintf("ERL_EPMD_PORT=%d", ports[2]), "ERL_EPMD_ADDRESS=127.0.0.1")
	}
	// Erlang starts its port mapper by itself, as a daemon that nobody ends;
	// unless there is one already.
	mapper, err := s.start("epmd", environment, "epmd", "-port", strconv.Itoa(ports[2]), "-address", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	start := func(ctx context.Context, _ int) (*process, error) {
		p, err := s.start("rabbitmq", environment, "/usr/lib/rabbitmq/bin/rabbitmq-server")
		if err != nil {
			return nil, err
		}
		p.group = true
		// It listens before it is ready, and connections of that time break.
		return p, p.says(ctx, "Server startup complete")
	}
	return &broker{addresses: []string{local(ports[0])}, start: start}, mapper.listens(ctx, local(ports[2]))
}
