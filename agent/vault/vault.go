// Package vault is the gateway's store of secrets: a directory in which each is a
// file of its own, encrypted with age (https://age-encryption.org/v1) to the
// gateway's own key.
//
//	identity     the private key as age-keygen writes it, mode 0600; not there
//	             where systemd hands it to the service instead
//	recipient    the public key, age1…: what others seal secrets to
//	NAME.age     a secret, in age's armour: `age -d -i identity NAME.age` opens it
//
// Each file is written beside its place, made durable, and moved there: after a
// power cut it is the old one or the new one. A damaged file concerns the secret
// in it and no other.
//
// A configuration on trial brings secrets that are used while it is tried, and
// taken into the directory once it is kept: see Try and Stage.
package vault

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gridgate/internal/secret"
	"gridgate/internal/sys"
)

// Bounds of a secret and of what seals one, in octets. A seal has a line for each
// gateway that it is for.
const (
	MaxSecret = 8 << 10
	MaxSealed = 64 << 10
)

// MaxNames is how many secrets there may be, in a document and on a gateway.
const MaxNames = 4096

var (
	// ErrUnknown says that there is no secret of that name.
	ErrUnknown = errors.New("there is no such secret on this gateway")
	// ErrDamaged says that a file of the vault is not what was put there.
	ErrDamaged = errors.New("damaged")
	// ErrNoIdentity says that the gateway's key is not to be had.
	ErrNoIdentity = errors.New("the gateway's key is not to be had")
	// ErrOtherKey says that a secret was sealed to other keys than this gateway's.
	ErrOtherKey = errors.New("sealed for another key than this gateway's")
)

// Vault is a store of secrets. Its methods may be called from several goroutines,
// and by several processes: each change is one move of a file.
type Vault struct {
	dir    string
	getenv func(string) string
	at     func(step string) // is told what was just made durable; a test ends the process there

	mu     sync.Mutex
	keys   keys
	trial  map[string][]byte // sealed, of a configuration on trial
	opened map[string]opened // by name
	held   map[string][]byte // taken, and perhaps not in the directory yet
}

// opened is a secret that was decrypted before.
type opened struct {
	sum   [sha256.Size]byte // of what sealed it
	value secret.Value
}

// Open gives the vault in a directory, which need not be there. getenv says where
// systemd has the service's credentials; nil: nowhere. It touches nothing.
func Open(dir string, getenv func(string) string) *Vault {
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	return &Vault{dir: dir, getenv: getenv, at: func(string) {}, opened: map[string]opened{}}
}

// Dir gives the directory.
func (v *Vault) Dir() string { return v.dir }

// IsName says whether a secret may be called so: 1 to 64 of a-z, 0-9 and '-'.
func IsName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func checkName(name string) error {
	if !IsName(name) {
		return fmt.Errorf("%.80q is no name of a secret; want 1 to 64 characters of a-z, 0-9 and '-'", name)
	}
	return nil
}

// Get gives a secret. The error says why there is none, and what to do.
func (v *Vault) Get(name string) (secret.Value, error) {
	if err := checkName(name); err != nil {
		return secret.Value{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	sealed, err := v.sealed(name)
	if err != nil {
		return secret.Value{}, err
	}
	sum := sha256.Sum256(sealed)
	if known, ok := v.opened[name]; ok && known.sum == sum {
		return known.value, nil
	}
	value, err := v.unseal(sealed)
	if errors.Is(err, ErrNoIdentity) {
		return secret.Value{}, err
	}
	if err != nil {
		return secret.Value{}, fmt.Errorf("%w; set it anew with gridgate secret set %s", err, name)
	}
	v.opened[name] = opened{sum, value}
	return value, nil
}

// sealed gives what is in effect for a name. mu is held.
func (v *Vault) sealed(name string) ([]byte, error) {
	for _, over := range []map[string][]byte{v.trial, v.held} {
		if s, ok := over[name]; ok {
			return s, nil
		}
	}
	b, err := readFile(v.path(name), MaxSealed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; set it with gridgate secret set %s, or push it", ErrUnknown, name)
	}
	return b, err
}

// NamesOf gives the names of sealed secrets, in order.
func NamesOf(sealed map[string][]byte) []string {
	all := make([]string, 0, len(sealed))
	for name := range sealed {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

const suffix = ".age"

func (v *Vault) path(name string) string { return filepath.Join(v.dir, name+suffix) }

// Mark tells one state of a secret from another, without telling anything of it.
func (v *Vault) Mark(name string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	sealed, err := v.sealed(name)
	if err != nil {
		return "none"
	}
	sum := sha256.Sum256(sealed)
	return hex.EncodeToString(sum[:8])
}

// Names gives the names of the secrets, those on trial too, in order.
func (v *Vault) Names() ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.names()
}

func (v *Vault) names() ([]string, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := append(NamesOf(v.trial), NamesOf(v.held)...)
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && IsName(name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Entry is a secret as it is listed.
type Entry struct {
	Name string    `json:"name"`
	Set  time.Time `json:"set"` // when its file was written
	// Problem says why it cannot be used; empty: it can.
	Problem string `json:"problem,omitempty"`
}

// List gives the secrets, in the order of their names.
func (v *Vault) List() ([]Entry, error) {
	names, err := v.Names()
	if err != nil {
		return nil, err
	}
	_, closed := v.Protection()
	all := make([]Entry, 0, len(names))
	for _, name := range names {
		e := Entry{Name: name}
		if info, err := os.Stat(v.path(name)); err == nil {
			e.Set = info.ModTime().UTC().Truncate(time.Second)
		}
		if closed != nil {
			e.Problem = ErrNoIdentity.Error()
		} else if _, err := v.Get(name); err != nil {
			e.Problem = err.Error()
		}
		all = append(all, e)
	}
	return all, nil
}

// Set seals a secret to the gateway's own key and stores it.
func (v *Vault) Set(name string, value secret.Value) error {
	to, err := v.Recipient()
	if err != nil {
		return err
	}
	sealed, err := Seal(value, to)
	if err != nil {
		return err
	}
	return v.store(map[string][]byte{name: sealed})
}

// Put stores a secret that somebody sealed to the gateway's key. It is opened
// first: one that cannot be is refused.
func (v *Vault) Put(name string, sealed []byte) error {
	all := map[string][]byte{name: sealed}
	if err := v.Check(all); err != nil {
		return err
	}
	return v.store(all)
}

func (v *Vault) store(all map[string][]byte) error {
	take, err := v.Stage(all)
	if err != nil {
		return err
	}
	return take()
}

// Check says whether secrets that somebody sealed can be opened here, and what is
// wrong with all that cannot.
func (v *Vault) Check(sealed map[string][]byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, name := range NamesOf(sealed) {
		err := checkName(name)
		if err == nil {
			_, err = v.unseal(sealed[name])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("secrets.%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Try makes sealed secrets count in the place of those of the same names; of none
// it gives the place back. A configuration on trial does so.
func (v *Vault) Try(sealed map[string][]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trial = sealed
}

// OnTrial says whether a secret counts for the time of a trial only: what is stored
// meanwhile does not, and is replaced when the trial goes well.
func (v *Vault) OnTrial(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, is := v.trial[name]
	return is
}

// Stage writes sealed secrets beside their places, durably; take moves them there.
// Until then nothing has changed: a power cut loses what was staged. After take
// they count in this process even where it gives an error.
func (v *Vault) Stage(sealed map[string][]byte) (take func() error, err error) {
	for name := range sealed {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	if len(sealed) == 0 {
		return func() error { return nil }, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if names, err := v.names(); err != nil {
		return nil, err
	} else if len(names)+len(sealed) > MaxNames {
		return nil, fmt.Errorf("%d secrets and %d more; %d are the most", len(names), len(sealed), MaxNames)
	}
	if err := v.makeDir(); err != nil {
		return nil, err
	}
	staged := map[string]string{}
	for _, name := range NamesOf(sealed) {
		path, err := v.fresh(sealed[name])
		if err != nil {
			for _, p := range staged {
				_ = os.Remove(p)
			}
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		staged[name] = path
	}
	v.at("staged")
	return func() error { return v.take(sealed, staged) }, nil
}

// Take stores sealed secrets, and makes them count in this process even where that
// gives an error.
func (v *Vault) Take(sealed map[string][]byte) error {
	take, err := v.Stage(sealed)
	if err != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.hold(sealed)
		return err
	}
	return take()
}

// hold makes secrets count that are perhaps not in the directory. mu is held.
func (v *Vault) hold(sealed map[string][]byte) {
	if v.held == nil {
		v.held = map[string][]byte{}
	}
	for name, s := range sealed {
		v.held[name] = s
	}
}

// take moves what was staged to its places.
func (v *Vault) take(sealed map[string][]byte, staged map[string]string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, name := range NamesOf(sealed) {
		if err := os.Rename(staged[name], v.path(name)); err != nil {
			errs = append(errs, fmt.Errorf("secret %s: %w", name, err))
			continue
		}
		v.at("moved")
	}
	if err := errors.Join(append(errs, sys.SyncDir(v.dir))...); err != nil {
		v.hold(sealed)
		return err
	}
	for name := range sealed {
		delete(v.held, name)
	}
	v.at("synced")
	return nil
}

// Remove takes a secret away.
func (v *Vault) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	err := os.Remove(v.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrUnknown
	}
	if err == nil {
		err = sys.SyncDir(v.dir)
	}
	delete(v.held, name)
	delete(v.opened, name)
	return err
}

// Sweep removes what a power cut left half written. The agent does so at its
// start, when nobody else writes.
func (v *Vault) Sweep() error {
	torn, err := filepath.Glob(filepath.Join(v.dir, freshPrefix+"*"))
	for _, t := range torn {
		err = errors.Join(err, os.Remove(t))
	}
	return err
}

// freshPrefix is what the names of files begin with that are being written.
const freshPrefix = ".new-"

// fresh writes a new file of the directory, durably.
func (v *Vault) fresh(data []byte) (path string, err error) {
	f, err := os.CreateTemp(v.dir, freshPrefix+"*") // mode 0600
	if err != nil {
		return "", err
	}
	err = v.own(f)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// replace puts a file of the directory in the place of the one of that name.
func (v *Vault) replace(name string, data []byte) error {
	path, err := v.fresh(data)
	if err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(v.dir, name)); err != nil {
		_ = os.Remove(path)
		return err
	}
	return sys.SyncDir(v.dir)
}

// makeDir makes the directory where there is none.
func (v *Vault) makeDir() error {
	if _, err := os.Stat(v.dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return err
	}
	d, err := os.Open(v.dir)
	if err != nil {
		return err
	}
	if err := errors.Join(v.own(d), d.Close()); err != nil {
		return err
	}
	return sys.SyncDir(filepath.Dir(v.dir))
}

// own gives what root makes to whom the directory above belongs: the service has
// to read it.
func (v *Vault) own(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	above, err := os.Stat(filepath.Dir(v.dir))
	if err != nil {
		return err
	}
	if s, ok := above.Sys().(*syscall.Stat_t); ok && s.Uid != 0 {
		return f.Chown(int(s.Uid), int(s.Gid))
	}
	return nil
}

// readFile reads a file of at most that many octets.
func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err = cmp.Or(err, f.Close()); err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: %w: more than %d octets", path, ErrDamaged, most)
	}
	return data, err
}
