package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"gridgate/internal/meter"
)

// sealedWith reads the parameter that holds a sealed key file.
func sealedWith(decode func(any) error) ([]byte, error) {
	var with struct {
		Sealed string `yaml:"sealed"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	if strings.TrimSpace(with.Sealed) == "" {
		return nil, wrong("sealed", "missing; want a key file that is sealed to the key of this gateway (age -a -r AGE1…)")
	}
	return []byte(with.Sealed), nil
}

// keyFile opens a sealed key file.
func keyFile(store KeyStore, sealed []byte) ([]keyRow, error) {
	if store == nil {
		return nil, errors.New("this gateway has no store of secrets")
	}
	file, err := store.Open(sealed)
	if err != nil {
		return nil, fmt.Errorf("with.sealed: %w", err)
	}
	return parseKeyFile(file)
}

// importKeys takes keys that a maker delivered with its meters.
type importKeys struct{ sealed []byte }

func newImportKeys(decode func(any) error) (Executor, error) {
	sealed, err := sealedWith(decode)
	return importKeys{sealed}, err
}

// imported is what the result of an import tells: which names the secrets have.
type imported struct {
	Serial string   `json:"serial"`
	Meter  meter.ID `json:"meter,omitempty"`
	Names  []string `json:"names"`
}

// Do keeps all of them. What was kept before a cut is kept again.
func (k importKeys) Do(ctx context.Context, j *Job) Outcome {
	s := j.Gateway.Meters
	rows, err := keyFile(s.Keys, k.sealed)
	if err != nil {
		return Refuse("%w", err)
	}
	var told []imported
	for i, row := range rows {
		if err := ctx.Err(); err != nil {
			return Fail(err)
		}
		id, names := s.namesOf(row.serial)
		t := imported{Serial: row.serial, Meter: id}
		for kind, key := range row.keys {
			if err := s.Keys.Set(names[kind], hexOf(key)); err != nil {
				return Outcome{State: Failed, Text: fmt.Sprintf("%d of %d meters are kept; %s: %v", i, len(rows), row.serial, err), Data: told}
			}
			t.Names = append(t.Names, names[kind])
		}
		if row.password != nil {
			name := usualName(row.serial, "password")
			if err := s.Keys.Set(name, row.password); err != nil {
				return Outcome{State: Failed, Text: fmt.Sprintf("%d of %d meters are kept; %s: %v", i, len(rows), row.serial, err), Data: told}
			}
			t.Names = append(t.Names, name)
		}
		told = append(told, t)
		j.Progress(int64(i+1), int64(len(rows)), "")
	}
	return DoneWith(fmt.Sprintf("keys of %d meters are kept", len(rows)), told)
}

// usualName is the name of a meter's secret where no configuration says another:
// meter-SERIAL-ek.
func usualName(serial, what string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, serial)
	return "meter-" + safe + "-" + what
}

// UsualKeyNames gives the names of the keys of a meter where no configuration
// says others.
func UsualKeyNames(serial string) KeyNames {
	names := KeyNames{}
	for _, kind := range keyKinds() {
		names[kind] = usualName(serial, kind.String())
	}
	return names
}

// namesOf gives the names of all keys of the meter with that serial number: as
// its configuration has them, if it is configured, and else the usual ones.
func (s *MeterServices) namesOf(serial string) (id meter.ID, names KeyNames) {
	names = UsualKeyNames(serial)
	if s.Find == nil {
		return "", names
	}
	id, ok := s.Find(serial)
	if !ok {
		return "", names
	}
	if own, err := s.KeyNames(id); err == nil {
		for kind, name := range own {
			names[kind] = name
		}
	}
	return id, names
}

// changeKeys gives meters new keys.
type changeKeys struct{ sealed []byte }

func newChangeKeys(decode func(any) error) (Executor, error) {
	sealed, err := sealedWith(decode)
	return changeKeys{sealed}, err
}

// keyNote is what is noted of a change of keys.
type keyNote struct {
	Stages bool `json:"stages,omitempty"` // they are being kept there; the meter was given nothing
	Staged bool `json:"staged"`           // the new keys are kept beside the old ones
	Has    bool `json:"has"`              // the meter has shown that it has them
	Master bool `json:"master,omitempty"` // the master key is among them
}

// Do keeps the new keys beside the old ones, gives them to the meter, and has
// them take the place of the old when the meter has shown that it has them. At
// each moment the keys that the meter has are on the flash.
func (k changeKeys) Do(ctx context.Context, j *Job) Outcome {
	s := j.Gateway.Meters
	if s.Keys == nil || s.KeyNames == nil {
		return Refuse("this gateway has no store of secrets")
	}
	names, err := s.KeyNames(j.Meter)
	if err != nil {
		return Refuse("%w", err)
	}
	if s.Changing != nil {
		end, err := s.Changing(j.Meter)
		if err != nil {
			return Refuse("%w", err)
		}
		defer end()
	}
	var note keyNote
	switch had, err := noted(j, &note); {
	case err != nil:
		return Lost(err)
	case had && note.Has:
		return settled(s.Keys, names)
	case had && note.Staged:
		return k.find(ctx, j, names)
	case had && note.Stages:
		if err := SettleKeys(s.Keys, names, false); err != nil {
			return Outcome{State: Failed, Text: "nothing was sent: what a cut left of the new keys cannot be forgotten: " + err.Error()}
		}
	}
	keys, master, out := k.wanted(j, names)
	if out == nil && !note.Stages {
		if out = k.before(ctx, j, names); out == nil { // the master key may be another one now
			keys, master, out = k.wanted(j, names)
		}
	}
	if out != nil {
		return *out
	}
	if err := j.Note(keyNote{Stages: true}); err != nil {
		return Fail(err)
	}
	if err := stage(s.Keys, names, keys); err != nil {
		return Outcome{State: Failed, Text: "nothing was sent: the new keys cannot be kept: " + err.Error()}
	}
	if err := j.Note(keyNote{Staged: true}); err != nil {
		return Fail(errors.Join(err, SettleKeys(s.Keys, names, false)))
	}
	o, err := perform(ctx, j, meter.ChangeKeys{Keys: keys, Master: master})
	return k.ended(ctx, j, names, o, err)
}

// before finds out which keys the meter has where a change before left that open:
// its keys may be those beside the ones in use, and no others may take their place.
func (k changeKeys) before(ctx context.Context, j *Job, names KeyNames) *Outcome {
	store := j.Gateway.Meters.Keys
	keys, err := stagedKeys(store, names)
	if err == nil && keys == nil {
		return nil
	}
	var o meter.Outcome
	if err == nil {
		o, err = perform(ctx, j, meter.TryKeys{Keys: keys})
	}
	if err == nil && o.Keys == meter.KeysUnknown {
		err = o.Err
	}
	if err == nil && o.Keys != meter.KeysUnknown {
		err = SettleKeys(store, names, o.Keys == meter.NewKeys)
	}
	if err == nil && o.Keys != meter.KeysUnknown {
		return nil
	}
	text := "nothing was sent: it is not known which keys the meter has since a change before; both are kept"
	if err != nil {
		text += ": " + err.Error()
	}
	return &Outcome{State: Failed, Text: text}
}

// wanted gives the keys for the meter, and what they are wrapped by.
func (k changeKeys) wanted(j *Job, names KeyNames) (keys map[meter.KeyKind]meter.Secret, master meter.Secret, no *Outcome) {
	refuse := func(format string, args ...any) (map[meter.KeyKind]meter.Secret, meter.Secret, *Outcome) {
		out := Refuse(format, args...)
		return nil, nil, &out
	}
	s := j.Gateway.Meters
	rows, err := keyFile(s.Keys, k.sealed)
	if err != nil {
		return refuse("%w", err)
	}
	for _, row := range rows {
		if j.Serial != "" && strings.EqualFold(row.serial, j.Serial) {
			keys = row.keys
		}
	}
	if len(keys) == 0 {
		return refuse("the key file has no keys for the serial number %q", j.Serial)
	}
	for kind := range keys {
		if names[kind] == "" {
			return refuse("its configuration names no secret for %v (%v=secret:NAME): the new one could not be kept", kind, kind)
		}
	}
	name := names[meter.MasterKey]
	text, err := s.Keys.Get(name)
	if err != nil || text == nil {
		return refuse("its master key, the secret %q, is not in the store: import it first (kek)", name)
	}
	if master, err = keyOf(text); err != nil {
		return refuse("its master key, the secret %q: %w", name, err)
	}
	return keys, master, nil
}

// find finds out, after a cut, which keys the meter has. It is given none again.
func (k changeKeys) find(ctx context.Context, j *Job, names KeyNames) Outcome {
	s := j.Gateway.Meters
	keys, err := stagedKeys(s.Keys, names)
	switch {
	case err != nil:
		return Lost(fmt.Errorf("the new keys cannot be read: %w", err))
	case keys == nil && k.inUse(j, names): // a visit has found it out
		return DoneWith("the meter has its new keys, and so has the store", nil)
	case keys == nil:
		return Outcome{State: Failed, Text: "the gateway was cut off amid it; the meter has its old keys"}
	}
	o, err := perform(ctx, j, meter.TryKeys{Keys: keys})
	if o.Keys == meter.OldKeys {
		o.Result, o.Err = meter.Failed, errors.New("the gateway was cut off amid it; the meter has its old keys: order it anew")
	}
	return k.ended(ctx, j, names, o, err)
}

// inUse says whether the keys that were ordered are those in use.
func (k changeKeys) inUse(j *Job, names KeyNames) bool {
	keys, _, no := k.wanted(j, names)
	for kind, key := range keys {
		if text, err := j.Gateway.Meters.Keys.Get(names[kind]); err != nil || !bytes.Equal(text, hexOf(key)) {
			return false
		}
	}
	return no == nil
}

// ended has the keys be kept that the meter has.
func (k changeKeys) ended(ctx context.Context, j *Job, names KeyNames, o meter.Outcome, err error) Outcome {
	store := j.Gateway.Meters.Keys
	out := outcomeOf(&o, err)
	switch {
	case ctx.Err() != nil: // the next start finds out
		return out
	case o.Keys == meter.NewKeys:
		if err := j.Note(keyNote{Staged: true, Has: true}); err != nil {
			return Fail(err)
		}
		return settled(store, names)
	case o.Keys == meter.OldKeys, o.Result == meter.Refused, o.Result == meter.NotTried && !o.Sent && !isTrial(o.Act):
		if err := SettleKeys(store, names, false); err != nil {
			out.Text += "; the new keys cannot be forgotten: " + err.Error()
		}
		return out
	}
	out.State = Unknown
	out.Text = "it is not known which keys the meter has; both are kept, and tried at each visit: " + out.Text
	return out
}

func isTrial(act meter.Act) bool {
	_, is := act.(meter.TryKeys)
	return is
}

// settled has the new keys take the place of the old.
func settled(store KeyStore, names KeyNames) Outcome {
	if err := SettleKeys(store, names, true); err != nil {
		return Outcome{State: Failed, Text: "the meter has its new keys, which are kept beside the old ones: " + err.Error()}
	}
	return DoneWith("the meter has its new keys, and so has the store", nil)
}
