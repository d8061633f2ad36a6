package dlmstest

import (
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
	return NewBreaker(4, changed).Object(code)
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
