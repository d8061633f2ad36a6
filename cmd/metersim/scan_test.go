package main

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/configs"
	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/drivers/scan"
)

// A scan names every model as itself, whatever other maps have registers in common
// with it, and reads its serial number where the map has one.
func TestAScanNamesEveryModel(t *testing.T) {
	t.Parallel()
	var models []*modbus.Model
	for _, name := range configs.ModelNames() {
		m, err := configs.Model(name)
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	for i, m := range models {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				own := line.Settings{Baud: 9600, DataBits: 8, Parity: 'E', StopBits: 1}
				wire := drivertest.NewWire(own)
				f, err := parseFaults("", 1)
				if err != nil {
					t.Fatal(err)
				}
				server := rtuServer{faults: f, meters: []*modbusMeter{{unit: 5, serial: 4711, model: m, number: i, now: time.Now}}}
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { _ = server.serve(ctx, wire.Meter(ctx)) })
				l := wire.Line()
				s := scan.New(scan.Config{
					Line: l, Protocols: []scan.Protocol{scan.ModbusRTU}, Settings: scan.LikelySettings()[:2], Units: []uint8{4, 5, 6}, Models: models, Now: stamps,
				})
				if err := s.Run(t.Context()); err != nil {
					t.Error(err)
				}
				serial := ""
				if m.Serial != nil {
					serial = "4711"
				}
				if found := s.Found(); len(found) != 1 || found[0].Model != m.Name || len(found[0].Or) > 0 || found[0].Serial != serial || found[0].Settings != own || found[0].Unit != 5 {
					t.Errorf("found %+v", found)
				}
				cancel()
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				_ = wire.Close()
				wg.Wait()
			})
		})
	}
}
