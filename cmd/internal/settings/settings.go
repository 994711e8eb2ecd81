package settings

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Setting is one value of a program.
type Setting struct {
	// Name is that of the flag, without dashes before it, and of the key in the
	// config file.
	Name string
	// Env is the name of the environment variable. Empty: there is none.
	Env string
	// Value points to where the value goes, and holds the default: *string (or
	// another type of text), *bool, *float64, *time.Duration, *[]string or
	// *map[string]string.
	Value any
	// Usage says in the help what the value is for. A word in backquotes stands
	// for the value.
	Usage string
	// OnlyEnv: there is no flag, for other users of the machine can see those,
	// and no key in the config file.
	OnlyEnv bool
}

// Source is where a value came from.
type Source int

// The sources, the stronger ones greater.
const (
	FromDefault Source = iota
	FromFile
	FromEnv
	FromFlag
)

// Set is the settings of a command. It is not safe for concurrent use.
type Set struct {
	flags *pflag.FlagSet
	items []*item
	// file is the config file; nil: the command has none.
	file *item
}

type item struct {
	Setting
	value  value
	source Source
	place  string // for people: "--name", "ENV" or "name in file"
}

// New returns a Set that has no settings yet and adds them to the given flags.
func New(flags *pflag.FlagSet) *Set { return &Set{flags: flags} }

// Add adds settings. It panics where a name is taken or a type is not known.
func (s *Set) Add(settings ...Setting) {
	for _, one := range settings {
		it := &item{Setting: one, value: valueOf(one.Value), place: "--" + one.Name}
		s.items = append(s.items, it)
		if one.OnlyEnv {
			it.place = one.Env
			continue
		}
		usage := one.Usage
		if one.Env != "" {
			usage += " [$" + one.Env + "]"
		}
		flag := s.flags.VarPF(it.value, one.Name, "", usage)
		if _, ok := one.Value.(*bool); ok {
			flag.NoOptDefVal = "true"
		}
	}
}

// ConfigFile adds the setting "config", which names the config file.
func (s *Set) ConfigFile(env string) {
	s.Add(Setting{Name: "config", Env: env, Value: new(string), Usage: "YAML `file` with any of these values, by the names of the flags"})
	s.file = s.items[len(s.items)-1]
}

// Load fills in what the flags did not give, from the environment (as
// os.LookupEnv) and the config file. Errors are [UsageError].
func (s *Set) Load(env func(string) (string, bool)) error {
	var wrong []error
	for _, it := range s.items {
		if flag := s.flags.Lookup(it.Name); flag != nil && flag.Changed && !it.OnlyEnv {
			it.source = FromFlag
			continue
		}
		if it.Env == "" {
			continue
		}
		text, ok := env(it.Env)
		if !ok || text == "" && !it.value.mayBeEmpty() {
			continue
		}
		if err := it.value.reset(text); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", it.Env, err))
		}
		it.source, it.place = FromEnv, it.Env
	}
	if s.file != nil && s.file.value.String() != "" {
		wrong = append(wrong, s.loadFile(s.file.value.String()))
	}
	if err := errors.Join(wrong...); err != nil {
		return &UsageError{err}
	}
	return nil
}

func (s *Set) loadFile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", s.file.place, err)
	}
	entries, err := parse(path, text)
	if err != nil {
		return err
	}
	var wrong []error
	for _, e := range entries {
		it := s.key(e.key)
		switch {
		case it == nil:
			wrong = append(wrong, fmt.Errorf("%s: unknown key %q; known are %s", e.place, e.key, strings.Join(s.Keys(), ", ")))
		case it.source >= FromEnv:
			// The environment or a flag stands, but what cannot be right is told.
			if err := valueLike(it.Value).take(e); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %s: %w", e.place, e.key, err))
			}
		default:
			if err := it.value.take(e); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %s: %w", e.place, e.key, err))
			}
			it.source, it.place = FromFile, fmt.Sprintf("%s in %s", e.key, path)
		}
	}
	return errors.Join(wrong...)
}

// Keys returns the keys that the config file may have, sorted.
func (s *Set) Keys() []string {
	var keys []string
	for _, it := range s.items {
		if !it.OnlyEnv && it != s.file {
			keys = append(keys, it.Name)
		}
	}
	slices.Sort(keys)
	return keys
}

func (s *Set) key(name string) *item {
	for _, it := range s.items {
		if it.Name == name && !it.OnlyEnv && it != s.file {
			return it
		}
	}
	return nil
}

// Source tells where the value of a setting came from, and Place says it to a
// person: "--data-dir", "EXPLORER_DATA_DIR" or "data-dir in explorer.yaml".
func (s *Set) Source(name string) Source {
	for _, it := range s.items {
		if it.Name == name {
			return it.source
		}
	}
	return FromDefault
}

// Place says where to change a value: where it came from, or its flag. A name
// that is no setting is returned as it is; one with a dot in it, such as
// "aliases.beat", is looked up by what stands before the dot too.
func (s *Set) Place(name string) string {
	before, after, _ := strings.Cut(name, ".")
	for _, it := range s.items {
		switch it.Name {
		case name:
			return it.place
		case before:
			return it.place + ": " + after
		}
	}
	return name
}
