package configs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gridgate/drivers/modbus"
)

// ModelNames lists the register maps that are built in, sorted.
func ModelNames() []string { return builtInModels(false) }

// DLMSModelNames lists the models of DLMS meters that are built in, sorted.
func DLMSModelNames() []string { return builtInModels(true) }

func builtInModels(dlms bool) (names []string) {
	for _, m := range modelTexts() {
		if isDLMSModel(m.text) == dlms {
			names = append(names, m.name)
		}
	}
	slices.Sort(names) // "a-b.yaml" sorts before "a.yaml"
	return names
}

// isDLMSModel tells the files of the two kinds of models apart.
func isDLMSModel(text string) bool {
	return strings.HasPrefix(text, "protocol:") || strings.Contains(text, "\nprotocol:")
}

// Model gives the built-in register map of that name. It is a new one each
// time.
func Model(name string) (*modbus.Model, error) { return ModelIn("", name) }

// ModelIn gives the register map of that name: DIR/NAME.yaml, or the built-in
// one where there is no such file or no directory is named. What is wrong with
// a map are Problems.
func ModelIn(dir, name string) (*modbus.Model, error) {
	file, data, err := modelFile(dir, name, ModelNames())
	if err != nil {
		return nil, err
	}
	return ParseModel(file, data)
}

// modelFile reads the file of a model; builtIn are those of its protocol.
func modelFile(dir, name string, builtIn []string) (file string, data []byte, err error) {
	if dir != "" && isID(name) {
		file = filepath.Join(dir, name+".yaml")
		data, err = readModel(file)
		if !errors.Is(err, fs.ErrNotExist) {
			return file, data, err
		}
	}
	if slices.Contains(builtIn, name) {
		return "models/" + name + ".yaml", packedModel(name), nil
	}
	names := slices.Clone(builtIn)
	if dir != "" {
		own, _ := filepath.Glob(filepath.Join(dir, "*.yaml")) // for a message only
		for _, f := range own {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".yaml"))
		}
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return "", nil, errors.New(unknownModel(name, names))
}

func readModel(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return data, nil
}

// unknownModel says what may have been meant: names that are a slip of the hand
// away, or of the same vendor, or all.
func unknownModel(name string, names []string) string {
	text := fmt.Sprintf("no model %q; ", name)
	if s, ok := suggest(name, names); ok {
		text += "did you mean " + s + "? "
	}
	vendor, kind, _ := strings.Cut(name, "-")
	near := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		v, k, _ := strings.Cut(n, "-")
		alike := v == vendor || len(v) > 3 && 2*distance(v, vendor) < len(v) || len(kind) > 2 && strings.Contains(k, kind) || len(vendor) > 2 && strings.Contains(k, vendor)
		return len(name) > 64 || !alike
	})
	if len(near) > 0 {
		return text + "near it are " + strings.Join(near, ", ")
	}
	return text + "want one of " + strings.Join(names, ", ")
}

// loadedModel is the model of some meters of a configuration.
type loadedModel struct {
	model *modbus.Model
	dlms  *DLMSModel
	sum   [sha256.Size]byte // of its file
	err   error
}

// Model gives the register map that meters of the configuration have by this
// name. It was read with the configuration; all of them share it.
func (c *Config) Model(name string) (*modbus.Model, error) {
	if m, ok := c.models[name]; ok {
		return m.model, m.err
	}
	return ModelIn(c.Models, name)
}

// model gives a register map, read once for all meters that have it. What is
// wrong with its file is among the problems.
func (r *reader) model(d *document, name string) (*modbus.Model, error) {
	m := r.load(d, name, name, ModelNames(), func(m *loadedModel, file string, data []byte) (err error) {
		m.model, err = ParseModel(file, data)
		return err
	})
	return m.model, m.err
}

// load gives the model kept under key, or reads it from the file of that name,
// one of names, with parse. What is wrong with the file is among the problems.
func (r *reader) load(d *document, key, name string, names []string, parse func(m *loadedModel, file string, data []byte) error) loadedModel {
	if m, ok := d.models[key]; ok {
		return m
	}
	file, data, err := modelFile(d.Models, name, names)
	m := loadedModel{err: err, sum: sha256.Sum256(data)}
	if err == nil {
		if err = parse(&m, file, data); err != nil {
			var ps Problems
			errors.As(err, &ps)
			r.others = append(r.others, ps...)
			m.err = fmt.Errorf("%s has errors", file)
		}
	}
	if d.models == nil {
		d.models = map[string]loadedModel{}
	}
	d.models[key] = m
	return m
}

// modelsDir checks the directory of register maps. The usual one need not be
// there.
func (r *reader) modelsDir(d *document, has nodes) {
	n := has["models"]
	if n == nil || d.Models == "" || d.Models == DefaultModels {
		return
	}
	if info, err := os.Stat(d.Models); err != nil {
		r.fail("models", n, n.Value, "%v", err)
	} else if !info.IsDir() {
		r.fail("models", n, n.Value, "is no directory")
	}
}
