package dlmstest

import (
	"sync"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// The control states of a disconnect control.
const (
	disconnected = 0
	connected    = 1
	readyToClose = 2
)

// Disconnector gives an object of class 70 (IEC 62056-6-2, 4.5.8), connected
// and in control mode 4: what is disconnected remotely is reconnected remotely.
// changed, if not nil, is told the output state when it changes.
func Disconnector(code obis.Code, changed func(on bool)) Object {
	var mu sync.Mutex
	output, state, mode := true, byte(connected), byte(4)
	return Object{
		Class: 70, Code: code, Attributes: []int8{2, 3, 4}, Settable: []int8{4}, Methods: []int8{1, 2},
		Read: func(id int8, rows *Selection) (axdr.Value, bool) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case rows != nil:
			case id == 2:
				return axdr.Boolean(output), true
			case id == 3:
				return axdr.Enum(state), true
			case id == 4:
				return axdr.Enum(mode), true
			}
			return axdr.Value{}, false
		},
		Write: func(id int8, v axdr.Value) Result {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case id != 4:
				return ReadWriteDenied
			case v.Tag != axdr.TagEnum || v.Num > 6:
				return TypeUnmatched
			}
			mode = byte(v.Num)
			return Success
		},
		Act: func(id int8, _ axdr.Value) (axdr.Value, Result) {
			mu.Lock()
			defer mu.Unlock()
			if mode == 0 || id != 1 && id != 2 {
				return axdr.Value{}, ReadWriteDenied
			}
			before := output
			switch {
			case id == 1:
				output, state = false, disconnected
			case mode == 2 || mode == 4:
				output, state = true, connected
			case state == disconnected:
				state = readyToClose // the customer's button does the rest
			}
			if output != before && changed != nil {
				changed(output)
			}
			return axdr.Value{}, Success
		},
	}
}

// Limiter gives an object of class 71 (IEC 62056-6-2, 4.5.9) that watches
// monitored, with a threshold, and runs the script actions of 0-0:10.0.106.
func Limiter(code obis.Code, monitored Column, threshold axdr.Value) Object {
	script := func(n uint16) axdr.Value {
		return axdr.Structure(axdr.OctetString("\x00\x00\x0A\x00\x6A\xFF"), axdr.LongUnsigned(n))
	}
	o := Cells(71, code, map[int8]axdr.Value{
		2: axdr.Structure(axdr.LongUnsigned(monitored.Class), axdr.OctetString(string(monitored.Code[:])), axdr.Integer(monitored.ID)),
		3: threshold, 4: threshold, 5: threshold,
		6:  axdr.DoubleLongUnsigned(60),
		7:  axdr.DoubleLongUnsigned(60),
		8:  axdr.Structure(axdr.LongUnsigned(0), axdr.OctetString("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x80\x00\xFF"), axdr.DoubleLongUnsigned(0)),
		9:  axdr.Array(),
		10: axdr.Boolean(false),
		11: axdr.Structure(script(1), script(2)),
	}, 4, 5, 6, 7, 8, 9, 11)
	return o
}

// ScriptStep is one action of a script: it sets an attribute, or runs a method.
type ScriptStep struct {
	Runs     bool
	Column   Column // the attribute, or the method
	Argument axdr.Value
}

// Scripts gives an object of class 9 (IEC 62056-6-2, 4.5.2): scripts numbered
// from 1.
func Scripts(code obis.Code, scripts ...[]ScriptStep) Object {
	table := axdr.Array()
	for i, steps := range scripts {
		actions := axdr.Array()
		for _, s := range steps {
			service := axdr.Enum(1)
			if s.Runs {
				service = axdr.Enum(2)
			}
			actions.Items = append(actions.Items, axdr.Structure(
				service, axdr.LongUnsigned(s.Column.Class), axdr.OctetString(string(s.Column.Code[:])), axdr.Integer(s.Column.ID), s.Argument))
		}
		table.Items = append(table.Items, axdr.Structure(axdr.LongUnsigned(uint16(i+1)), actions))
	}
	o := Attributes(classScript, code, map[int8]func() axdr.Value{2: Fixed(table)})
	o.Methods = []int8{1}
	return o
}
