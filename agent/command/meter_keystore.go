package command

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gridgate/internal/meter"
)

// KeyStore keeps secrets on the gateway, encrypted. Its names are 1 to 64 of a to
// z, 0 to 9 and '-'.
type KeyStore interface {
	// Get gives a secret; of none it gives nil.
	Get(name string) (meter.Secret, error)
	// Set keeps one. It is durable when Set returns, and there is the old one or
	// the new at each moment.
	Set(name string, s meter.Secret) error
	// Remove forgets one; there need not be one.
	Remove(name string) error
	// Open opens what somebody sealed to this gateway.
	Open(sealed []byte) (meter.Secret, error)
}

// KeyNames are the names that the keys of a meter have in the store.
type KeyNames map[meter.KeyKind]string

// next is behind the name of a key that its meter may have instead.
const next = "-next"

// stagedKeys gives the keys that a meter was perhaps given: nil, if none are
// kept beside those in use.
func stagedKeys(store KeyStore, names KeyNames) (map[meter.KeyKind]meter.Secret, error) {
	var keys map[meter.KeyKind]meter.Secret
	for kind, name := range names {
		text, err := store.Get(name + next)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", kind, err)
		}
		if text == nil {
			continue
		}
		if keys == nil {
			keys = map[meter.KeyKind]meter.Secret{}
		}
		if keys[kind], err = keyOf(text); err != nil {
			return nil, fmt.Errorf("%v: %w", kind, err)
		}
	}
	return keys, nil
}

// StagedKeys gives the keys that a meter may have instead of those in use, since
// it was being given them when everything ended; nil: none.
func StagedKeys(store KeyStore, names KeyNames) (map[meter.KeyKind]meter.Secret, error) {
	return stagedKeys(store, names)
}

// SettleKeys makes the keys of StagedKeys those in use, if the meter has them, and
// forgets them else. It may be cut off at any point, and called again.
func SettleKeys(store KeyStore, names KeyNames, has bool) error {
	for _, kind := range keyKinds() {
		name, ok := names[kind]
		if !ok {
			continue
		}
		text, err := store.Get(name + next)
		if err == nil && text != nil && has {
			err = store.Set(name, text)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", kind, err)
		}
	}
	for _, kind := range keyKinds() { // none before all are in use
		if name, ok := names[kind]; ok {
			if err := store.Remove(name + next); err != nil {
				return fmt.Errorf("%v: %w", kind, err)
			}
		}
	}
	return nil
}

// stage keeps keys beside those in use.
func stage(store KeyStore, names KeyNames, keys map[meter.KeyKind]meter.Secret) error {
	for _, kind := range keyKinds() {
		key, ok := keys[kind]
		if !ok {
			continue
		}
		if err := store.Set(names[kind]+next, hexOf(key)); err != nil {
			return fmt.Errorf("%v: %w", kind, err)
		}
	}
	return nil
}

func keyKinds() []meter.KeyKind {
	return []meter.KeyKind{meter.UnicastKey, meter.BroadcastKey, meter.AuthenticationKey, meter.MasterKey}
}

// keyOf reads a key as the store keeps it: hexadecimal digits, spaces allowed.
func keyOf(text meter.Secret) (meter.Secret, error) {
	key, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil || len(key) != 16 && len(key) != 32 {
		return nil, errors.New("no key: want 32 or 64 hexadecimal digits")
	}
	return key, nil
}

func hexOf(key meter.Secret) meter.Secret { return hex.AppendEncode(nil, key) }

// keyRow is a line of a key file: what a meter has.
type keyRow struct {
	serial   string
	keys     map[meter.KeyKind]meter.Secret
	password meter.Secret
}

// The most that a key file holds.
const (
	mostKeyRows = 5000
	mostSerial  = 32
)

// parseKeyFile reads a key file: a line a meter, with commas between, behind a
// first line that names the columns, in any order:
//
//	serial,ek,ak,kek,bek,password
//	31426926,000102030405060708090A0B0C0D0E0F,D0D1…,,,
//
// serial is as the meter shows it, keys are hexadecimal digits, and what is
// empty is left as it is. Lines that are empty or begin with # are passed over.
// Nothing is quoted. Problems name the line and never what stands in it.
func parseKeyFile(file []byte) (rows []keyRow, err error) {
	var p problems
	var head []string
	kinds := map[string]meter.KeyKind{}
	for _, k := range keyKinds() {
		kinds[k.String()] = k
	}
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(string(file), "\xEF\xBB\xBF")) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Split(line, ",")
		if head == nil {
			if head, err = keyColumns(fields, kinds); err != nil {
				return nil, fmt.Errorf("key file: line %d: %w", number, err)
			}
			continue
		}
		if len(rows) == mostKeyRows {
			return nil, fmt.Errorf("key file: more than %d meters", mostKeyRows)
		}
		row, err := keyRowOf(head, fields, kinds)
		if err == nil && seen[row.serial] {
			err = errors.New("a serial number that stands there twice")
		}
		if err != nil {
			p.add(fmt.Errorf("key file: line %d: %w", number, err))
			continue
		}
		seen[row.serial] = true
		rows = append(rows, row)
	}
	switch {
	case head == nil:
		return nil, errors.New("key file: want a first line such as serial,ek,ak,kek")
	case p.err() != nil:
		return nil, p.err()
	case len(rows) == 0:
		return nil, errors.New("key file: no meters in it")
	}
	return rows, nil
}

// keyColumns reads the names of the columns.
func keyColumns(head []string, kinds map[string]meter.KeyKind) ([]string, error) {
	for i, column := range head {
		head[i] = strings.ToLower(strings.TrimSpace(column))
		if _, key := kinds[head[i]]; !key && head[i] != "serial" && head[i] != "password" || slices.Contains(head[:i], head[i]) {
			return nil, fmt.Errorf("column %d: want each of serial, ek, ak, kek, bek and password once at most", i+1)
		}
	}
	if !slices.Contains(head, "serial") {
		return nil, errors.New("no column serial")
	}
	return head, nil
}

func keyRowOf(head, fields []string, kinds map[string]meter.KeyKind) (keyRow, error) {
	row := keyRow{keys: map[meter.KeyKind]meter.Secret{}}
	if len(fields) != len(head) {
		return row, fmt.Errorf("%d columns, want %d", len(fields), len(head))
	}
	for i, field := range fields {
		field = strings.TrimSpace(field)
		kind, isKey := kinds[head[i]]
		switch {
		case field == "":
		case isKey:
			key, err := keyOf(meter.Secret(field))
			if err != nil {
				return row, fmt.Errorf("%s: %w", head[i], err)
			}
			row.keys[kind] = key
		case head[i] == "serial":
			row.serial = field
		default:
			row.password = meter.Secret(field)
		}
	}
	switch {
	case row.serial == "" || len(row.serial) > mostSerial:
		return row, fmt.Errorf("serial: want 1 to %d characters", mostSerial)
	case len(row.keys) == 0 && row.password == nil:
		return row, errors.New("no key")
	}
	return row, nil
}
