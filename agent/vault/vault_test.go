package vault

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gridgate/internal/secret"
)

// made gives a vault with a key.
func made(t *testing.T) (v *Vault, recipient string) {
	t.Helper()
	v = Open(filepath.Join(t.TempDir(), "secrets"), nil)
	recipient, err := v.Ensure()
	if err != nil {
		t.Fatal(err)
	}
	return v, recipient
}

func set(t *testing.T, v *Vault, name, text string) {
	t.Helper()
	if err := v.Set(name, secret.Of(text)); err != nil {
		t.Fatal(err)
	}
}

func sealTo(t *testing.T, recipient, text string) []byte {
	t.Helper()
	b, err := Seal(secret.Of(text), recipient)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFresh: where nothing was ever kept nothing is missing.
func TestFresh(t *testing.T) {
	t.Parallel()
	if v := Open(filepath.Join(t.TempDir(), "secrets"), nil); !v.Fresh() {
		t.Error("a folder that is not there")
	}
	if v, _ := made(t); v.Fresh() {
		t.Error("a key was made")
	}
}

// wants fails where a secret is not that text; empty: where there is one.
func wants(t *testing.T, v *Vault, name, text string) {
	t.Helper()
	got, err := v.Get(name)
	if string(got.Reveal()) != text || (err == nil) != (text != "") {
		t.Errorf("%s: %d octets, %v; want %q", name, got.Len(), err, text)
	}
}

// TestWhatIsSetIsThere, for others who open the directory, and readable by its
// owner alone.
func TestWhatIsSetIsThere(t *testing.T) {
	t.Parallel()
	v, recipient := made(t)
	set(t, v, "broker", "hunter2")
	set(t, v, "key", strings.Repeat("k", MaxSecret))
	before := v.Mark("broker")
	other := Open(v.Dir(), nil)
	wants(t, other, "broker", "hunter2")
	wants(t, other, "key", strings.Repeat("k", MaxSecret))
	set(t, other, "broker", "hunter3")
	wants(t, v, "broker", "hunter3")
	if v.Mark("broker") == before || v.Mark("broker") != other.Mark("broker") || v.Mark("none") != "none" {
		t.Errorf("marks: %s before, %s and %s", before, v.Mark("broker"), other.Mark("broker"))
	}
	if names, err := v.Names(); err != nil || !slices.Equal(names, []string{"broker", "key"}) {
		t.Errorf("%q, %v", names, err)
	}
	if again, err := other.Ensure(); again != recipient || err != nil {
		t.Errorf("the key is %s, was %s: %v", again, recipient, err)
	}
	files, err := os.ReadDir(v.Dir())
	if err != nil || len(files) != 4 {
		t.Errorf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(v.Dir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := v.Remove("broker"); err != nil {
		t.Error(err)
	}
	wants(t, v, "broker", "")
	wants(t, v, "key", strings.Repeat("k", MaxSecret))
	if err := v.Remove("broker"); !errors.Is(err, ErrUnknown) {
		t.Errorf("twice: %v", err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	v, recipient := made(t)
	_, stranger := made(t)
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"none there":  {second(v.Get("broker")), "there is no such secret on this gateway; set it with gridgate secret set broker, or push it"},
		"a bad name":  {second(v.Get("../identity")), "is no name of a secret"},
		"set so":      {v.Set("a/b", secret.Of("x")), "is no name of a secret"},
		"removed so":  {v.Remove("../x"), "is no name of a secret"},
		"nothing":     {v.Set("a", secret.Value{}), "a secret without content"},
		"too long":    {v.Set("a", secret.Of(strings.Repeat("x", MaxSecret+1))), "a secret of 8193 octets; 8192 are the most"},
		"other key":   {v.Put("a", sealTo(t, stranger, "hunter2")), "secrets.a: sealed for another key than this gateway's, which is " + recipient},
		"no seal":     {v.Put("a", []byte("hunter2")), "secrets.a: damaged: not what age seals"},
		"cut short":   {v.Put("a", sealTo(t, recipient, "hunter2")[:300]), "secrets.a: damaged"},
		"too large":   {v.Put("a", make([]byte, MaxSealed+1)), "65537 octets; 65536 are the most"},
		"only a line": {v.Put("a", sealTo(t, recipient, "\n")), "a secret without content"},
		"nobody":      {second(Seal(secret.Of("x"))), "nobody to seal it for"},
		"no key":      {second(Seal(secret.Of("x"), "age1xyz")), `recipient "age1xyz": want age1 and 58`},
		"a private":   {second(Seal(secret.Of("x"), "AGE-SECRET-KEY-1XYZ")), "want age1"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) || strings.Contains(c.err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %q", name, c.err, c.want)
		}
	}
	if names, err := v.Names(); err != nil || len(names) > 0 {
		t.Errorf("stored all the same: %q, %v", names, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestDamage of a file, wherever it is, is said, and concerns nothing else.
func TestDamage(t *testing.T) {
	t.Parallel()
	v, _ := made(t)
	set(t, v, "one", "first")
	set(t, v, "two", "second")
	whole, err := os.ReadFile(v.path("one"))
	if err != nil {
		t.Fatal(err)
	}
	damage := func(what string, data []byte) {
		if err := os.WriteFile(v.path("one"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		v := Open(v.Dir(), nil)
		got, err := v.Get("one")
		same := bytes.Equal(bytes.TrimSpace(data), bytes.TrimSpace(whole))
		if same != (err == nil) || !same && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrOtherKey) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
		if err != nil && !strings.HasSuffix(err.Error(), "; set it anew with gridgate secret set one") {
			t.Errorf("%s: %v", what, err)
		}
		wants(t, v, "two", "second")
	}
	for i := range whole {
		damage(fmt.Sprintf("cut at %d", i), whole[:i])
		flipped := slices.Clone(whole)
		flipped[i] ^= 1
		if flipped[i] != '\r' && whole[i] != '\n' { // armour is lenient on white space
			damage(fmt.Sprintf("flipped at %d", i), flipped)
		}
	}
	damage("zeros", make([]byte, len(whole)))
	damage("more behind it", append(slices.Clone(whole), "more"...))
	list, err := v.List()
	if err != nil || len(list) != 2 || list[0].Problem == "" || list[1].Problem != "" || list[1].Set.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	set(t, v, "one", "mended")
	wants(t, v, "one", "mended")
}

// TestDamagedKey: no other is made in its place, since the secrets would be lost
// for good, and what can be done is said.
func TestDamagedKey(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"empty":   func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"garbage": func(p string) error { return os.WriteFile(p, []byte("AGE-SECRET-KEY-1HUNTER2"), 0o600) },
		"long":    func(p string) error { return os.WriteFile(p, make([]byte, 1<<16), 0o600) },
		"gone":    os.Remove,
	} {
		v, was := made(t)
		set(t, v, "a", "x")
		if err := damage(filepath.Join(v.Dir(), identityFile)); err != nil {
			t.Fatal(err)
		}
		v = Open(v.Dir(), nil)
		_, err := v.Get("a")
		if !errors.Is(err, ErrNoIdentity) || !strings.Contains(err.Error(), "gridgate secret recipient -new") || strings.Contains(err.Error(), "HUNTER2") {
			t.Errorf("%s: %v", name, err)
		}
		got, err := v.Ensure()
		if name == "gone" && (err != nil || got != was) || name != "gone" && err == nil { // the service may have it
			t.Errorf("%s: the key is %q, %v", name, got, err)
		}
		if v.Fresh() {
			t.Errorf("%s: as if there never was a key", name)
		}
		if p, err := v.Protection(); p != Unprotected || err == nil {
			t.Errorf("%s: protected by %s, %v", name, p, err)
		}
		next, err := v.Renew()
		if err != nil || next == was {
			t.Fatalf("%s: %q, %v", name, next, err)
		}
		if _, err := v.Get("a"); !errors.Is(err, ErrOtherKey) {
			t.Errorf("%s: the old secret: %v", name, err)
		}
		set(t, v, "a", "y")
		wants(t, Open(v.Dir(), nil), "a", "y")
	}
}

// TestCredential: what systemd hands to the service counts before the file, and who
// is not the service can still set secrets, and read none.
func TestCredential(t *testing.T) {
	t.Parallel()
	v, recipient := made(t)
	if p, err := v.Protection(); p != ByFile || err != nil {
		t.Errorf("%s, %v", p, err)
	}
	set(t, v, "a", "before")
	dir := t.TempDir()
	if err := os.Rename(filepath.Join(v.Dir(), identityFile), filepath.Join(dir, Credential)); err != nil {
		t.Fatal(err)
	}
	service := Open(v.Dir(), func(name string) string { return map[string]string{"CREDENTIALS_DIRECTORY": dir}[name] })
	wants(t, service, "a", "before")
	if p, err := service.Protection(); p != ByCredential || err != nil {
		t.Errorf("%s, %v", p, err)
	}
	if _, err := service.Renew(); err == nil {
		t.Error("another key was made beside the credential")
	}
	tool := Open(v.Dir(), nil)
	if _, err := tool.Get("a"); !errors.Is(err, ErrNoIdentity) || !strings.Contains(err.Error(), "only the service has it") {
		t.Errorf("%v", err)
	}
	if got, err := tool.Ensure(); got != recipient || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	set(t, tool, "b", "from outside")
	wants(t, service, "b", "from outside")

	fresh := Open(filepath.Join(t.TempDir(), "s"), service.getenv) // a credential and no directory yet
	if got, err := fresh.Ensure(); got != recipient || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := Open(fresh.Dir(), nil).Recipient(); got != recipient || err != nil {
		t.Errorf("for others: %s, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, Credential), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := Open(v.Dir(), service.getenv)
	if _, err := broken.Get("a"); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("%v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "s"), service.getenv).Ensure(); err == nil {
		t.Error("another key was made beside a broken credential")
	}
}

func TestOthersCanReadTheKey(t *testing.T) {
	t.Parallel()
	v, _ := made(t)
	if err := os.Chmod(filepath.Join(v.Dir(), identityFile), 0o644); err != nil { //nolint:gosec // that is the fault
		t.Fatal(err)
	}
	if p, err := Open(v.Dir(), nil).Protection(); p != ByOpenFile || err != nil {
		t.Errorf("%s, %v", p, err)
	}
}

// TestOnTrial: what a configuration brings counts while it is tried, and is taken
// or gone after it.
func TestOnTrial(t *testing.T) {
	t.Parallel()
	v, recipient := made(t)
	set(t, v, "a", "old")
	mark := v.Mark("a")
	brought := map[string][]byte{"a": sealTo(t, recipient, "new"), "b": sealTo(t, recipient, "more")}
	if err := v.Check(brought); err != nil {
		t.Fatal(err)
	}
	v.Try(brought)
	wants(t, v, "a", "new")
	wants(t, v, "b", "more")
	if names, _ := v.Names(); len(names) != 2 {
		t.Errorf("%q", names)
	}
	wants(t, Open(v.Dir(), nil), "a", "old")
	v.Try(nil)
	wants(t, v, "a", "old")
	wants(t, v, "b", "")
	if v.Mark("a") != mark {
		t.Error("a trial left a mark")
	}
	v.Try(brought)
	tried := v.Mark("a")
	take, err := v.Stage(brought)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, Open(v.Dir(), nil), "a", "old")
	if err := take(); err != nil {
		t.Fatal(err)
	}
	v.Try(nil)
	wants(t, v, "b", "more")
	wants(t, Open(v.Dir(), nil), "a", "new")
	if v.Mark("a") != tried {
		t.Error("what is kept has another mark than when it was tried: its lines would begin anew")
	}
}

// TestNoRoom: what cannot be stored counts all the same for who must have it, and
// nothing of it is left behind.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	v, recipient := made(t)
	set(t, v, "a", "old")
	gone := v.Dir() + ".away"
	if err := os.Rename(v.Dir(), gone); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Dir(), nil, 0o600); err != nil { // no directory can be made here
		t.Fatal(err)
	}
	if err := v.Take(map[string][]byte{"a": sealTo(t, recipient, "new")}); err == nil {
		t.Error("taken without a place")
	}
	wants(t, v, "a", "new")
	if err := errors.Join(os.Remove(v.Dir()), os.Rename(gone, v.Dir())); err != nil {
		t.Fatal(err)
	}
	wants(t, v, "a", "new")
	wants(t, Open(v.Dir(), nil), "a", "old")
	if err := v.Take(map[string][]byte{"a": sealTo(t, recipient, "newer")}); err != nil {
		t.Error(err)
	}
	wants(t, v, "a", "newer")
	wants(t, Open(v.Dir(), nil), "a", "newer")
}

// TestStockAge opens what we seal and seals what we open, armoured and not, to
// several gateways too, with our key file and with age-keygen's.
func TestStockAge(t *testing.T) {
	t.Parallel()
	v, recipient := made(t)
	other, otherKey := made(t)
	set(t, v, "a", "from gridgate")
	run := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(in)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v\n%s(scripts/setup.sh installs age)", args, err, stderr.String())
		}
		return string(out)
	}
	identity := filepath.Join(v.Dir(), identityFile)
	if got := run("", "age", "-d", "-i", identity, v.path("a")); got != "from gridgate" {
		t.Errorf("age opens %q", got)
	}
	if got := strings.TrimSpace(run("", "age-keygen", "-y", identity)); got != recipient {
		t.Errorf("age-keygen says %s, we %s", got, recipient)
	}
	for _, flags := range [][]string{{"-a"}, nil, {"-a", "-r", otherKey}} {
		sealed := run("from age\n", append(append([]string{"age"}, flags...), "-r", recipient)...)
		if err := v.Put("b", []byte(sealed)); err != nil {
			t.Errorf("%q: %v", flags, err)
		}
		wants(t, v, "b", "from age")
		if len(flags) == 3 {
			if err := other.Put("b", []byte(sealed)); err != nil {
				t.Error(err)
			}
			wants(t, other, "b", "from age")
		}
	}
	for _, sealed := range []string{run("x", "age", "-a", "-r", otherKey)} {
		if err := v.Put("c", []byte(sealed)); !errors.Is(err, ErrOtherKey) {
			t.Errorf("%v", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "secrets")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run("", "age-keygen", "-o", filepath.Join(dir, identityFile))
	theirs := Open(dir, nil)
	set(t, theirs, "a", "x")
	wants(t, Open(dir, nil), "a", "x")
}

// TestNothingPrintsTheKey: the vault holds it.
func TestNothingPrintsTheKey(t *testing.T) {
	t.Parallel()
	v, _ := made(t)
	set(t, v, "a", "hunter2")
	wants(t, v, "a", "hunter2")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, what := range []any{v, &v, struct{ v *Vault }{v}, struct{ V *Vault }{v}} {
			text := fmt.Sprintf(verb, what)
			if strings.Contains(strings.ToUpper(text), "AGE-SECRET") || strings.Contains(text, "hunter2") || strings.Contains(text, "68756e746572") {
				t.Errorf("%s: %s", verb, text)
			}
		}
	}
}

// TestSigningKey is the same whenever it is asked for, and another for another
// gateway.
func TestSigningKey(t *testing.T) {
	t.Parallel()
	v, _ := made(t)
	other, _ := made(t)
	a, err := v.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(v.Dir(), nil).SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	c, err := other.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := a.Public().(ed25519.PublicKey)
	if !public.Equal(b.Public()) || public.Equal(c.Public()) {
		t.Error("it is not the gateway's")
	}
	if _, err := Open(t.TempDir(), nil).SigningKey(); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("without a key: %v", err)
	}
}

func TestIsOnTrial(t *testing.T) {
	t.Parallel()
	v := Open(t.TempDir(), nil)
	v.Try(map[string][]byte{"a": nil})
	if !v.OnTrial("a") || v.OnTrial("b") {
		t.Error("a is on trial, and b is not")
	}
	if v.Try(nil); v.OnTrial("a") {
		t.Error("its trial is over")
	}
}
