package cosem

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// maxUnsaid is for how many sessions in a row a meter may refuse for the moment
// to say who it is. Then what else names it does, if it never said it.
const maxUnsaid = 3

// serialNumbers are the objects that may hold the serial number, the first
// that has it counts: device id 1, and the logical device name.
func serialNumbers() []dlms.Attribute {
	return []dlms.Attribute{
		{Class: meter.ClassData, Code: obis.Code{0, 0, 96, 1, 0, 255}, ID: 2},
		{Class: meter.ClassData, Code: obis.Code{0, 0, 42, 0, 0, 255}, ID: 2},
	}
}

// identify reads the serial number, once a session. Of a kept session nothing
// is asked: the connection has one meter at its end.
func (v *visit) identify(ctx context.Context) error {
	if !v.known {
		if err := v.readSerial(ctx); err != nil {
			return fmt.Errorf("serial number: %w", err)
		}
		v.known = true
	}
	if v.done != nil && v.done.known && v.serial != v.got.Identity.Found {
		return fmt.Errorf("%w: %q, and it was %q", errOther, v.serial, v.got.Identity.Found)
	}
	v.got.Identity = meter.Identity{
		Want: v.cfg.Serial, Found: v.serial,
		Proven: v.serial != "" && (v.cfg.Serial == "" || v.cfg.Serial == v.serial),
	}
	if v.cache.serial != v.serial || v.serial == "" && v.cache.opened != v.opened {
		v.cache = cache{serial: v.serial, opened: v.opened}
		v.recall()
	}
	return nil
}

// readSerial reads the objects that may hold the serial number, up to the one
// that is configured, or else the first that has one. That an object is refused
// for the moment does not make the next the serial number.
func (v *visit) readSerial(ctx context.Context) error {
	v.serial = ""
	var passing error
	from, momentary := -1, false
	for i, a := range serialNumbers() {
		value, err := v.get(ctx, a)
		if err != nil && !isRefusal(err) {
			return err
		}
		text := serialText(value)
		if v.cfg.Serial != "" && isSerial(v.cfg.Serial, text) {
			v.serial, v.serialFrom = v.cfg.Serial, i
			return nil
		}
		if isForTheMoment(err) && (from < 0 || v.cfg.Serial != "") {
			momentary = true
			if v.unsaid < maxUnsaid || v.serialFrom == i {
				passing = refused(a, err)
			}
		}
		if text != "" && from < 0 {
			v.serial, from = text, i
		}
		if from >= 0 && v.cfg.Serial == "" {
			break
		}
	}
	if passing != nil {
		v.serial, v.unsaid = "", v.unsaid+1
		return passing
	}
	if !momentary {
		v.unsaid = 0
	}
	if from >= 0 {
		v.serialFrom = from
	}
	return nil
}

// isSerial says whether the serial number found is the configured one, "" being
// any: hexadecimal digits are of either case, and a logical device name has the
// three letters of the maker in front (IEC 62056-6-2).
func isSerial(configured, found string) bool {
	if maker := len(found) - len(configured); maker == 3 && isLetters(found[:maker]) {
		found = found[maker:]
	}
	return configured == "" || strings.EqualFold(configured, found)
}

func isLetters(s string) bool {
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

// isForTheMoment says whether a refusal may be none another time.
func isForTheMoment(err error) bool {
	const serviceNotSupported = 2
	var exception *dlms.ExceptionError
	return errors.Is(err, dlms.TemporaryFailure) || errors.As(err, &exception) && exception.State != dlms.ServiceNotAllowed && exception.Service != serviceNotSupported
}
