package command

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// mostImage is the longest image of a meter that is taken, in octets, and
// mostImages how many are kept at a time.
const (
	mostImage  = 16 << 20
	mostImages = 4
)

// images is a directory of images for meters: each is called by its SHA-256, and
// with .part behind it while not all of it has come.
type images string

const partial = ".part"

func (d images) path(sum string) string { return filepath.Join(string(d), sum) }

// sumOf reads a SHA-256 in hexadecimal digits.
func (p *problems) sum(key, text string) string {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != sha256.Size {
		p.wrong(key, "%q; want the SHA-256 of the image, 64 hexadecimal digits", clip(text))
	}
	return strings.ToLower(text)
}

// meterImage brings a part of an image.
type meterImage struct {
	sum          string
	size, offset int64
	data         []byte
	remove       bool
}

func newMeterImage(decode func(any) error) (Executor, error) {
	var with struct {
		SHA256 string `yaml:"sha256"`
		Size   int64  `yaml:"size"`
		Offset int64  `yaml:"offset"`
		Data   string `yaml:"data"`
		Remove bool   `yaml:"remove"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	m := meterImage{sum: p.sum("sha256", with.SHA256), size: with.Size, offset: with.Offset, remove: with.Remove}
	if with.Remove {
		if with.Size != 0 || with.Offset != 0 || with.Data != "" {
			p.wrong("remove", "is alone with sha256")
		}
		return m, p.err()
	}
	var err error
	m.data, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(with.Data), ""))
	if err != nil || len(m.data) == 0 {
		p.wrong("data", "want octets in base64")
	}
	if m.size < 1 || m.size > mostImage {
		p.wrong("size", "%d; want the octets of the whole image, 1 to %d", m.size, mostImage)
	}
	if m.offset < 0 || m.offset+int64(len(m.data)) > m.size {
		p.wrong("offset", "%d; with data of %d octets it goes beyond size %d", m.offset, len(m.data), m.size)
	}
	return m, p.err()
}

// Do keeps the part. The same part may come again.
func (m meterImage) Do(_ context.Context, j *Job) Outcome {
	d := images(j.Gateway.Meters.Images)
	if d == "" {
		return Refuse("this gateway has no place for images")
	}
	if m.remove {
		if err := errors.Join(absent(os.Remove(d.path(m.sum))), absent(os.Remove(d.path(m.sum)+partial))); err != nil {
			return Fail(err)
		}
		return DoneWith("it is removed", nil)
	}
	have, whole, err := d.take(m)
	switch {
	case errors.Is(err, errImage):
		return Refuse("%w", err)
	case err != nil:
		return Fail(err)
	case whole:
		return DoneWith("the image is whole", map[string]int64{"have": have})
	}
	return DoneWith(fmt.Sprintf("%d of %d octets are here", have, m.size), map[string]int64{"have": have})
}

// errImage says that a part of an image is not taken.
var errImage = errors.New("the part is not taken")

func absent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// take adds a part, which must follow what is there, and checks the whole.
func (d images) take(m meterImage) (have int64, whole bool, err error) {
	if info, err := os.Stat(d.path(m.sum)); err == nil {
		return info.Size(), true, nil
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return 0, false, err
	}
	part := d.path(m.sum) + partial
	if others, err := os.ReadDir(string(d)); err != nil {
		return 0, false, err
	} else if _, err := os.Stat(part); err != nil && len(others) >= mostImages {
		return 0, false, fmt.Errorf("%w: %d images are here already: remove one", errImage, len(others))
	}
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	if have = info.Size(); m.offset > have {
		return have, false, fmt.Errorf("%w: it begins at %d, and what is here ends at %d", errImage, m.offset, have)
	}
	if _, err := f.WriteAt(m.data, m.offset); err != nil {
		return have, false, err
	}
	if err := f.Sync(); err != nil {
		return have, false, err
	}
	if have = max(have, m.offset+int64(len(m.data))); have < m.size {
		return have, false, nil
	}
	if err := d.check(f, m.sum); err != nil {
		return 0, false, errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, d.path(m.sum)); err != nil {
		return have, false, err
	}
	return have, true, sys.SyncDir(string(d))
}

func (d images) check(f io.ReadSeeker, sum string) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("%w: the whole has the SHA-256 %s", errImage, got)
	}
	return nil
}

// open gives an image that is whole.
func (d images) open(sum string) (f *os.File, size int64, err error) {
	if d == "" {
		return nil, 0, errors.New("this gateway has no place for images")
	}
	if f, err = os.Open(d.path(sum)); err != nil {
		return nil, 0, errors.New("the image is not here, or not whole: bring it with the action meter-image")
	}
	info, err := f.Stat()
	if err == nil {
		err = d.check(f, sum)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// meterFirmware gives meters an image.
type meterFirmware struct {
	sum, identifier string
	object          [6]byte
	activate        bool
	at              time.Time
}

func newMeterFirmware(decode func(any) error) (Executor, error) {
	var with struct {
		Object     string `yaml:"object"`
		SHA256     string `yaml:"sha256"`
		Identifier string `yaml:"identifier"`
		Activate   string `yaml:"activate"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	m := meterFirmware{sum: p.sum("sha256", with.SHA256), identifier: with.Identifier, object: objectOf(&p, "object", with.Object, 18)}
	if octets, is := strings.CutPrefix(with.Identifier, "hex:"); is {
		b, err := hex.DecodeString(octets)
		if err != nil {
			p.wrong("identifier", "%q; want hexadecimal digits behind hex:", clip(with.Identifier))
		}
		m.identifier = string(b)
	}
	if m.identifier == "" || len(m.identifier) > 64 {
		p.wrong("identifier", "want what the maker calls the image, 1 to 64 octets, as text or as hex:0102…")
	}
	switch with.Activate {
	case "now":
		m.activate = true
	case "no":
	default:
		at, err := time.Parse(time.RFC3339, with.Activate)
		if err != nil {
			p.wrong("activate", "%q; want now, a time such as 2027-01-01T03:00:00+01:00, or no: it is given and verified only", clip(with.Activate))
		}
		m.activate, m.at = true, at
	}
	return m, p.err()
}

// imageNote is what is noted of an image's way into a meter.
type imageNote struct {
	Begun  bool `json:"begun"`
	Active bool `json:"active"` // the activation was about to be sent
}

// imageVisit is how long an image has the line at a time: others have their
// turn between.
const (
	imageVisit  = time.Minute
	imageShare  = 20 * time.Second // between visits, for what others are due
	imagePause  = 10 * time.Second // while the meter verifies
	imageRepair = 15 * time.Minute // the longest pause behind visits that failed
	imageTries  = 200              // visits in a row that brought nothing
)

// Do brings the image into the meter, over as many visits as it takes, has it
// verified, and then activated: that is sent once.
func (m meterFirmware) Do(ctx context.Context, j *Job) Outcome {
	var note imageNote
	if _, err := noted(j, &note); err != nil {
		return Lost(err)
	}
	act := meter.Image{Object: m.object, Identifier: m.identifier, Begun: note.Begun, Budget: imageVisit}
	if note.Active {
		return m.activated(ctx, j, act, "the gateway was cut off amid the activation")
	}
	f, size, err := images(j.Gateway.Meters.Images).open(m.sum)
	if err != nil {
		return Refuse("%w", err)
	}
	defer func() { _ = f.Close() }() // it was read
	act.Octets, act.Size = f, uint32(size)
	o, err := m.transfer(ctx, j, act, &note)
	if o.Result != meter.Done || !m.activate {
		return outcomeOf(&o, err)
	}
	note.Active = true
	if err := j.Note(note); err != nil {
		return Fail(err)
	}
	act.Begun, act.Activate, act.At = true, true, m.at
	o, err = perform(ctx, j, act)
	if o.Result == meter.Pending {
		return m.activated(ctx, j, act, "the meter activates it")
	}
	return outcomeOf(&o, err)
}

// transfer brings the image, and has it verified.
func (m meterFirmware) transfer(ctx context.Context, j *Job, act meter.Image, note *imageNote) (o meter.Outcome, err error) {
	reached, vain := uint32(0), 0
	for {
		before := o
		o, err = perform(ctx, j, act)
		if note.Begun && o.Result == meter.NotTried && mayTryAgain(err) {
			o.Result, o.Reached, o.All = meter.Pending, before.Reached, before.All // nobody was there
		}
		if o.Begun && !note.Begun {
			note.Begun, act.Begun = true, true
			if nerr := j.Note(*note); nerr != nil {
				o.Result, o.Err = meter.Failed, nerr
				return o, nerr
			}
		}
		if o.Result != meter.Pending {
			return o, err
		}
		why := o.Err
		if why == nil {
			why = err
		}
		pause := imageShare
		switch {
		case why != nil:
			pause = min(imagePause<<min(vain, 10), imageRepair)
		case o.Reached >= o.All:
			pause = imagePause
		}
		if vain++; o.Reached > reached {
			reached, vain = o.Reached, 0
		}
		if vain > imageTries {
			return o, fmt.Errorf("%d visits brought nothing: %w", vain, errors.Join(why, errors.New("given up")))
		}
		text := factsText(o.After)
		if why != nil {
			text = "it goes on in " + pause.String() + ": " + why.Error()
		}
		j.Progress(int64(o.Reached), int64(o.All), text)
		if err := rest(ctx, pause); err != nil {
			return o, err
		}
		if !time.Now().Before(j.Expires) {
			return o, errors.New("the order has expired; another goes on where it is")
		}
	}
}

// activated looks for a while whether a meter runs what it was told to.
func (m meterFirmware) activated(ctx context.Context, j *Job, act meter.Image, before string) Outcome {
	const looks = 30
	for look := 1; ; look++ {
		o, err := perform(ctx, j, meter.Look{At: act})
		text := factsText(o.After)
		state := ""
		for _, f := range o.After {
			if f.Name == "image" {
				state = f.Value
			}
		}
		switch {
		case o.Result == meter.Done && state == "activated":
			return DoneWith(text, dataOf(&o))
		case o.Result == meter.Done && (state == "activation failed" || state == "verification failed"):
			return Outcome{State: Failed, Text: text, Data: dataOf(&o)}
		case look == looks || o.Result == meter.Done && state != "activating":
			if err != nil {
				text = err.Error()
			}
			return Outcome{State: Unknown, Text: before + "; now: " + text, Data: dataOf(&o)}
		}
		if rest(ctx, imagePause) != nil {
			return Lost(context.Cause(ctx))
		}
	}
}
