package vault

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"gridgate/internal/secret"
)

// Names of files, and of the credential that systemd hands to the service.
const (
	identityFile  = "identity"
	recipientFile = "recipient"
	Credential    = "gridgate-identity"
)

const identityMost = 4 << 10

// Protection is how the gateway's private key is kept.
type Protection string

// How it is kept, the best first.
const (
	// ByCredential: systemd hands it to the service, decrypted with the key of the
	// host or of its TPM (LoadCredentialEncrypted=).
	ByCredential Protection = "systemd credential"
	// ByFile: a file that its owner alone can read.
	ByFile Protection = "file of mode 0600"
	// ByOpenFile: others can read it too.
	ByOpenFile Protection = "file that others can read"
	// Unprotected: there is none yet.
	Unprotected Protection = "none yet"
)

// keys are the gateway's private keys: that of the credential first, then that of
// the file, which is the same unless one was replaced.
type keys struct {
	all        []*age.X25519Identity
	protection Protection
}

// load reads the private keys, once. mu is held.
func (v *Vault) load() error {
	if len(v.keys.all) > 0 {
		return nil
	}
	k := keys{protection: Unprotected}
	if dir := v.getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		id, err := readIdentity(filepath.Join(dir, Credential))
		switch {
		case err == nil:
			k.all, k.protection = append(k.all, id), ByCredential
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: %w", ErrNoIdentity, err)
		}
	}
	path := filepath.Join(v.dir, identityFile)
	switch id, err := readIdentity(path); {
	case err == nil:
		if k.all = append(k.all, id); k.protection == Unprotected {
			k.protection = fileProtection(path)
		}
	case len(k.all) > 0: // what is wrong with a file that nobody needs is no matter
	case errors.Is(err, fs.ErrNotExist) && v.hadIdentity():
		return fmt.Errorf("%w: only its public half is in %s: where systemd hands the private one to the service, only the service has it; else it is lost: gridgate secret recipient -new makes another, and all secrets are to be set anew", ErrNoIdentity, v.dir)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: none was made yet: gridgate secret recipient makes one", ErrNoIdentity)
	default:
		return fmt.Errorf("%w: %w; gridgate secret recipient -new makes another, and all secrets are to be set anew", ErrNoIdentity, err)
	}
	v.keys = k
	return nil
}

func fileProtection(path string) Protection {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return ByOpenFile
	}
	return ByFile
}

// hadIdentity says whether there was a key before.
func (v *Vault) hadIdentity() bool {
	_, err := os.Stat(filepath.Join(v.dir, recipientFile))
	return err == nil
}

// readIdentity reads a private key as age-keygen writes it. The error tells
// nothing of what is in the file.
func readIdentity(path string) (*age.X25519Identity, error) {
	data, err := readFile(path, identityMost)
	if err != nil {
		return nil, err
	}
	var found *age.X25519Identity
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil || found != nil {
			return nil, fmt.Errorf("%s: %w: want one line AGE-SECRET-KEY-1…, as age-keygen writes it", path, ErrDamaged)
		}
		found = id
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w: there is no key in it", path, ErrDamaged)
	}
	return found, nil
}

// Recipient gives the gateway's public key, to which others seal secrets. It is
// ErrNoIdentity where there is none: Ensure makes one.
func (v *Vault) Recipient() (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.load()
	if err == nil {
		return v.keys.all[0].Recipient().String(), nil
	}
	// Who seals needs no private key: the service may be the only one to have it.
	data, rerr := readFile(filepath.Join(v.dir, recipientFile), identityMost)
	text := strings.TrimSpace(string(data))
	if _, perr := age.ParseX25519Recipient(text); rerr == nil && perr == nil && !v.lost() {
		return text, nil
	}
	return "", err
}

// lost says whether the private key was in a file that is damaged.
func (v *Vault) lost() bool {
	_, err := os.Stat(filepath.Join(v.dir, identityFile))
	return err == nil
}

// Fresh says that no key was ever made here, nor a secret kept.
func (v *Vault) Fresh() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, err := os.Stat(filepath.Join(v.dir, identityFile))
	names, nerr := v.names()
	return errors.Is(err, fs.ErrNotExist) && !v.hadIdentity() && !v.hasCredential() && nerr == nil && len(names) == 0
}

// Protection says how the private key is kept. The error says why it cannot be had.
func (v *Vault) Protection() (Protection, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.load()
	return cmp.Or(v.keys.protection, Unprotected), err
}

// Ensure makes the gateway's key where there is none, and gives the public one.
func (v *Vault) Ensure() (recipient string, err error) {
	if recipient, err = v.Recipient(); err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		return recipient, v.publish(recipient)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ferr := os.Stat(filepath.Join(v.dir, identityFile)); !errors.Is(ferr, fs.ErrNotExist) || v.hadIdentity() || v.hasCredential() {
		return "", err // it is damaged or elsewhere: another would make its secrets worthless
	}
	return v.generate()
}

func (v *Vault) hasCredential() bool {
	dir := v.getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, Credential))
	return err == nil
}

// Renew makes another key in the place of the one that there was, which is set
// aside; secrets that were sealed to that one are worth nothing then.
func (v *Vault) Renew() (recipient string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.hasCredential() {
		return "", errors.New("systemd hands the key to the service: replace its credential instead")
	}
	old := filepath.Join(v.dir, identityFile)
	if err := os.Rename(old, old+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return v.generate()
}

// generate makes a key and its files. mu is held.
func (v *Vault) generate() (recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	if err := v.makeDir(); err != nil {
		return "", err
	}
	recipient = id.Recipient().String()
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().UTC().Format(time.RFC3339), recipient, id)
	if err := v.replace(identityFile, []byte(text)); err != nil {
		return "", err
	}
	v.at("identity")
	v.keys = keys{all: []*age.X25519Identity{id}, protection: ByFile}
	clear(v.opened)
	return recipient, v.publish(recipient)
}

// publish writes the public key down. mu is held.
func (v *Vault) publish(recipient string) error {
	path := filepath.Join(v.dir, recipientFile)
	text := []byte(recipient + "\n")
	if old, err := readFile(path, identityMost); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := v.makeDir(); err != nil {
		return err
	}
	return v.replace(recipientFile, text)
}

// Unseal opens what was sealed to the gateway's key and is none of the secrets of
// the vault: a file of many keys, of so many octets at most.
func (v *Vault) Unseal(sealed []byte, most int) (secret.Value, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.unsealMost(sealed, most)
}

// unseal opens what was sealed to the gateway's key. mu is held.
func (v *Vault) unseal(sealed []byte) (secret.Value, error) {
	if len(sealed) > MaxSealed {
		return secret.Value{}, fmt.Errorf("%d octets; %d are the most", len(sealed), MaxSealed)
	}
	return v.unsealMost(sealed, MaxSecret)
}

func (v *Vault) unsealMost(sealed []byte, most int) (secret.Value, error) {
	if err := v.load(); err != nil {
		return secret.Value{}, err
	}
	ids := make([]age.Identity, len(v.keys.all))
	for i, id := range v.keys.all {
		ids[i] = id
	}
	var from io.Reader = bytes.NewReader(sealed)
	if bytes.HasPrefix(bytes.TrimSpace(sealed), []byte("-----BEGIN")) {
		from = armor.NewReader(from)
	}
	plain, err := age.Decrypt(from, ids...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return secret.Value{}, fmt.Errorf("%w, which is %s", ErrOtherKey, v.keys.all[0].Recipient())
	case err != nil:
		return secret.Value{}, fmt.Errorf("%w: not what age seals, or not all of it", ErrDamaged) // its error quotes what is there: a secret perhaps
	}
	text, err := io.ReadAll(io.LimitReader(plain, int64(most)+1))
	switch {
	case err != nil:
		return secret.Value{}, fmt.Errorf("%w: not all of what age sealed", ErrDamaged)
	case len(text) > most:
		return secret.Value{}, fmt.Errorf("a secret of more than %d octets", most)
	}
	value := Trimmed(text)
	if value.IsZero() {
		return value, errors.New("a secret without content")
	}
	return value, nil
}

// Trimmed makes a secret of what was read, without the one line end that editors
// and echo put behind it.
func Trimmed(text []byte) secret.Value {
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = bytes.TrimSuffix(text[:n-1], []byte("\r"))
	}
	return secret.Of(text)
}

// Seal seals a secret to public keys, age1…, in age's armour. Whoever has a
// private key of one opens it.
func Seal(value secret.Value, recipients ...string) ([]byte, error) {
	switch {
	case value.IsZero():
		return nil, errors.New("a secret without content")
	case value.Len() > MaxSecret:
		return nil, fmt.Errorf("a secret of %d octets; %d are the most", value.Len(), MaxSecret)
	case len(recipients) == 0:
		return nil, errors.New("nobody to seal it for")
	}
	to := make([]age.Recipient, len(recipients))
	for i, r := range recipients {
		key, err := age.ParseX25519Recipient(r)
		if err != nil {
			return nil, fmt.Errorf("recipient %.80q: want age1 and 58 characters more", r)
		}
		to[i] = key
	}
	var b bytes.Buffer
	armoured := armor.NewWriter(&b)
	w, err := age.Encrypt(armoured, to...)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(value.Reveal())
	if err := errors.Join(err, w.Close(), armoured.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// SigningKey gives the Ed25519 key that the gateway signs with what it hands out
// on site. It is made of the private key, so that there is one to keep.
func (v *Vault) SigningKey() (crypto.Signer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.load(); err != nil {
		return nil, err
	}
	seed, err := hkdf.Key(sha256.New, []byte(v.keys.all[0].String()), nil, "gridgate archive signature", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
