package command

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"gridgate/internal/meter"
)

// Result is what is said on up/result/<id>.
type Result struct {
	ID     string    `json:"id"`
	Hash   string    `json:"sha256"` // of what is signed
	Action string    `json:"action,omitempty"`
	State  State     `json:"state"`
	Time   time.Time `json:"time"`
	Text   string    `json:"text,omitempty"`
	// Done and Of say how far it is: of meters, where there are several.
	Done int64 `json:"done,omitempty"`
	Of   int64 `json:"of,omitempty"`
	// Replayed says that this is what came of it before: it came again.
	Replayed bool            `json:"replayed,omitempty"`
	Meters   []told          `json:"meters,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
	Parts    *Parts          `json:"parts,omitempty"`
}

// Parts says what was sent beside the result, on up/result/<id>/1 and so on.
type Parts struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Parts int    `json:"parts"`
	Size  int    `json:"size"`
	Hash  string `json:"sha256"`
}

// told is what came of a command at one meter.
type told struct {
	Meter  meter.ID        `json:"meter,omitempty"`
	Serial string          `json:"serial,omitempty"`
	State  State           `json:"state"`
	Text   string          `json:"text,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`

	file *File
}

// PartSize is how long the parts are that something long is sent in: an alarm
// waits for one at most.
const PartSize = 1 << 10

const (
	// inline is how long a result may be whose data is in it.
	inline = 3 << 10
	// textMost bounds a text, in octets.
	textMost = 600
)

func tell(m Meter, o Outcome) told {
	t := told{Meter: m.ID, Serial: m.Serial, State: o.State, Text: cut(o.Text, textMost), file: o.File}
	if !t.State.Final() {
		t.State, t.Text = Failed, "the action gave no outcome"
	}
	if o.Data != nil {
		b, err := json.Marshal(o.Data)
		if err != nil {
			t.Text = cut(t.Text+": what was read cannot be told: "+err.Error(), textMost)
		} else {
			t.Data = b
		}
	}
	return t
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "…"
}

// pack gives a final result as it is kept and sent, and what goes beside it.
func (r Result) pack(file *File) (result, data []byte, err error) {
	r.Text = cut(r.Text, textMost)
	if result, err = json.Marshal(r); err != nil {
		return nil, nil, err
	}
	if file == nil && len(result) <= inline {
		return result, nil, nil
	}
	if file == nil {
		file = &File{Name: r.ID + ".json", Type: "application/json", Data: result}
	}
	sum := sha256.Sum256(file.Data)
	r.Parts = &Parts{Name: file.Name, Type: file.Type, Parts: (len(file.Data) + PartSize - 1) / PartSize, Size: len(file.Data), Hash: hex.EncodeToString(sum[:])}
	r.Data, r.Meters = nil, r.brief()
	result, err = json.Marshal(r)
	return result, file.Data, err
}

// brief gives the meters that it did not go well at, as many as there is room
// for, without data.
func (r Result) brief() (all []told) {
	size := 0
	for _, m := range r.Meters {
		m.Text, m.Data = cut(m.Text, 100), nil
		if size += 80 + len(m.Text) + len(m.Serial); m.State != Done && size < inline/2 {
			all = append(all, m)
		}
	}
	return all
}

// overall gives what came of a command from what came of it at its meters.
func overall(all []told) State {
	n := map[State]int{}
	for _, t := range all {
		n[t.State]++
	}
	switch {
	case n[Unknown] > 0:
		return Unknown
	case n[Done] == len(all):
		return Done
	case n[Refused] == len(all):
		return Refused
	}
	return Failed
}
