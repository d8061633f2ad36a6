package main

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "gateways" { // the test's own child
		main()
		return
	}
	os.Exit(m.Run())
}

func TestBrokers(t *testing.T) {
	for _, kind := range []string{"mosquitto", "nats", "rabbitmq"} {
		t.Run(kind, func(t *testing.T) {
			s, err := newStage()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			f := fleet{Gateways: 10, Meters: 20, Quarters: 4, Sites: 3, Start: time.Now().Truncate(15 * time.Minute).Add(-time.Hour)}
			begun := time.Now()
			b, err := startBroker(t.Context(), s, kind, "../../configs/fog", f)
			if err != nil {
				t.Fatal(err)
			}
			t.Log("broker up", time.Since(begun))
			fog, err := gridfog(t.Context(), "../..", s.dir)
			if err != nil {
				t.Fatal(err)
			}
			w, err := s.start("watch", nil, fog, "watch", "-broker", "mqtts://"+b.addresses[0], "-ca", s.dir+"/certs/ca.pem", "-cert", s.dir+"/certs/fog.pem", "-key", s.dir+"/certs/fog.key", "-session", "x", "-from-start", "-quiet", "-confirm", "-summary", s.dir+"/sum")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.says(t.Context(), "conn"); err != nil {
				t.Fatal(err)
			}
			c, err := startGateways(s, gatewayOptions{Fleet: f, Dir: s.dir + "/stores", Brokers: b.addresses, CA: s.dir + "/certs/ca.pem", Certs: s.dir + "/certs", FogConfirms: true})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			if err := c.until(ctx, "connected", func() bool { return c.progress().Connected == f.Gateways }); err != nil {
				t.Fatal(err)
			}
			t.Log("connected", time.Since(begun))
			if err := c.begin(); err != nil {
				t.Fatal(err)
			}
			if err := c.until(ctx, "done", func() bool { return c.progress().Done }); err != nil {
				t.Log(w.tail())
				t.Fatal(err, c.progress())
			}
			t.Logf("%v %+v", time.Since(begun), c.progress())
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			t.Log(w.tail())
		})
	}
}
