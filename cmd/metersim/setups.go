package main

import (
	"fmt"
	"net/netip"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

func energyIn() obis.Code  { return code(1, 8, 0) }
func energyOut() obis.Code { return code(2, 8, 0) }

func eventColumn(log byte) dlmstest.Column {
	return dlmstest.Column{Class: meter.ClassData, Code: obis.Code{0, 0, 96, 11, log, 255}, ID: 2}
}

// switchCode is the disconnect control.
func switchCode() obis.Code { return obis.Code{0, 0, 96, 3, 10, 255} }

// The script tables.
func billingScripts() obis.Code { return obis.Code{0, 0, 10, 0, 1, 255} }
func tariffScripts() obis.Code  { return obis.Code{0, 0, 10, 0, 100, 255} }
func switchScripts() obis.Code  { return obis.Code{0, 0, 10, 0, 106, 255} }

// Who a household is billed by: two tariffs that share what is drawn.
const (
	tariffs      = 2
	workingShare = 3 // of workingParts, by tariff 1
	workingParts = 5
)

// setups gives the objects that are about the meter and its line, and not about
// energy.
func (h household) setups(d *dlmsMeter) []dlmstest.Object {
	text := func(c obis.Code, s string) dlmstest.Object {
		return dlmstest.Data(c, dlmstest.Fixed(axdr.OctetString(s)))
	}
	number := func(c obis.Code, v axdr.Value) dlmstest.Object { return dlmstest.Data(c, dlmstest.Fixed(v)) }
	objects := []dlmstest.Object{
		text(obis.Code{1, 0, 0, 2, 0, 255}, "GRG-1.0"),
		number(code(0, 4, 2), axdr.LongUnsigned(1)), number(code(0, 4, 3), axdr.LongUnsigned(1)), // CT and VT
		number(obis.Code{0, 0, 97, 97, 0, 255}, axdr.DoubleLongUnsigned(0)),
		number(obis.Code{0, 0, 97, 98, 0, 255}, axdr.DoubleLongUnsigned(0)),
		dlmstest.HDLCSetup(d.station), dlmstest.LocalPort(d.modeE), dlmstest.GSMDiagnostic(h.now),
		dlmstest.RegisterMonitor(obis.Code{0, 0, 16, 1, 0, 255}, registerColumn(code(1, 7, 0)), switchScripts(), axdr.DoubleLongUnsigned(10000)),
		dlmstest.Scripts(billingScripts(), []dlmstest.ScriptStep{{
			Runs: true, Column: dlmstest.Column{Class: meter.ClassProfile, Code: billingProfile(), ID: 2}, Argument: axdr.Integer(0),
		}}),
		dlmstest.Scripts(tariffScripts(), setTariff(1), setTariff(2)),
		dlmstest.Cells(1, tariffInForce(), map[int8]axdr.Value{2: axdr.Unsigned(1)}, 2),
		dlmstest.PushSetup(d.push.first, d.push.ask),
		h.compact(),
	}
	port := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 4059)
	objects = append(objects, dlmstest.Network(port.Port(), port.Addr().As4())...)
	objects = append(objects, dlmstest.Calendar(tariffScripts(), billingScripts(), h.now)...)
	return append(objects, h.logs()...)
}

func tariffInForce() obis.Code { return obis.Code{0, 0, 96, 14, 0, 255} }

func setTariff(n uint8) []dlmstest.ScriptStep {
	return []dlmstest.ScriptStep{{
		Column: dlmstest.Column{Class: meter.ClassData, Code: tariffInForce(), ID: 2}, Argument: axdr.Unsigned(n),
	}}
}

// tariffRegisters gives what was drawn by each tariff: together it is the
// register without one.
func (h household) tariffRegisters() (objects []dlmstest.Object) {
	for tariff := range byte(tariffs) {
		objects = append(objects, dlmstest.Register(code(1, 8, tariff+1), -1, uint8(meter.WattHour), func() axdr.Value {
			drawn, _ := h.energy(h.now())
			all := uint32(10 * drawn)
			working := uint32(uint64(all) * workingShare / workingParts)
			if tariff == 0 {
				return axdr.DoubleLongUnsigned(working)
			}
			return axdr.DoubleLongUnsigned(all - working)
		}))
	}
	const period = 15 * time.Minute
	demand := func(ended bool) axdr.Value {
		end := h.now()
		if ended {
			end = end.Truncate(period)
		}
		begin := end.Add(-time.Nanosecond).Truncate(period)
		from, _ := h.energy(begin)
		to, _ := h.energy(end)
		return axdr.DoubleLongUnsigned(uint32(max(0, (to-from)/period.Hours())))
	}
	return append(objects, dlmstest.DemandRegister(code(1, 4, 0), 0, uint8(meter.Watt), period, demand, h.now))
}

// compact gives the readings that matter in a few octets.
func (h household) compact() dlmstest.Object {
	columns := []dlmstest.Column{clockColumn(), registerColumn(energyIn()), registerColumn(energyOut())}
	return dlmstest.CompactData(obis.Code{0, 0, 66, 0, 0, 255}, 1, columns, func() []axdr.Value {
		now := h.now()
		drawn, fed := h.energy(now)
		return []axdr.Value{
			axdr.OctetString(dlmstest.DateTime(now)), axdr.DoubleLongUnsigned(uint32(10 * drawn)), axdr.DoubleLongUnsigned(uint32(10 * fed)),
		}
	})
}

// The events of the logs beside the first.
const (
	eventCoverOpened   = 42
	eventCoverClosed   = 43
	eventVoltageSag    = 79
	eventVoltageSwell  = 85
	eventLinkLost      = 141
	eventPhaseMissing  = 82
	eventPhaseReturned = 83
)

// logs gives the event logs 1 to 5: fraud, switch, quality, communication and
// power failure. What is in them was some days ago.
func (h household) logs() (objects []dlmstest.Object) {
	today := h.now().Truncate(day)
	for i, events := range [][]uint8{
		{eventCoverOpened, eventCoverClosed},
		{eventDisconnect, eventReconnect},
		{eventVoltageSag, eventVoltageSwell, eventVoltageSag},
		{eventLinkLost},
		{eventPhaseMissing, eventPhaseReturned},
	} {
		log := dlmstest.NewLog(maxEvents)
		number := byte(i + 1)
		for n, event := range events {
			at := today.Add(-time.Duration(10*(len(events)-n)+int(number))*day + 9*time.Hour)
			log.Add(axdr.Structure(axdr.OctetString(dlmstest.DateTime(at)), axdr.Unsigned(event)))
		}
		last := axdr.Unsigned(events[len(events)-1])
		objects = append(objects,
			log.Object(obis.Code{0, 0, 99, 98, number, 255}, []dlmstest.Column{clockColumn(), eventColumn(number)}, 0, nil),
			dlmstest.Data(eventColumn(number).Code, dlmstest.Fixed(last)))
	}
	return objects
}

// readout gives the lines that the meter sends who asks for no HDLC.
func (h household) readout() []string {
	now := h.now()
	drawn, fed := h.energy(now)
	return []string{
		fmt.Sprintf("0-0:96.1.0(%s)", h.serial),
		fmt.Sprintf("0-0:1.0.0(%s)", now.Format("060102150405")),
		fmt.Sprintf("1-0:1.8.0(%010.4f*kWh)", drawn/1000),
		fmt.Sprintf("1-0:2.8.0(%010.4f*kWh)", fed/1000),
	}
}
