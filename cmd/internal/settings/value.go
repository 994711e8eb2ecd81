package settings

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// value is a flag's value that other sources can set as well.
type value interface {
	pflag.Value
	// reset replaces the value by what a text says.
	reset(text string) error
	// take replaces the value by that of an entry in a config file.
	take(e entry) error
	mayBeEmpty() bool
}

// valueOf makes a value that writes to what a pointer points to.
func valueOf(p any) value {
	switch p := p.(type) {
	case *bool:
		return &scalar{kind: "bool", get: func() string { return strconv.FormatBool(*p) }, set: func(s string) error {
			v, err := strconv.ParseBool(s)
			if err != nil {
				return fmt.Errorf("%q is neither true nor false", s)
			}
			*p = v
			return nil
		}}
	case *float64:
		return &scalar{kind: "number", get: func() string { return strconv.FormatFloat(*p, 'g', -1, 64) }, set: func(s string) error {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return fmt.Errorf("%q is not a number", s)
			}
			*p = v
			return nil
		}}
	case *time.Duration:
		return &scalar{kind: "duration", get: func() string { return shortDuration(*p) }, set: func(s string) error {
			v, err := time.ParseDuration(s)
			if err != nil {
				return fmt.Errorf("%q is not a duration, such as 10s or 1h30m", s)
			}
			*p = v
			return nil
		}}
	case *[]string:
		return &list{to: p}
	case *map[string]string:
		return &table{to: p}
	}
	v := reflect.ValueOf(p)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.String {
		panic(fmt.Sprintf("settings: cannot set a %T", p))
	}
	return &scalar{kind: "string", get: func() string { return v.Elem().String() }, set: func(s string) error {
		v.Elem().SetString(s)
		return nil
	}}
}

// valueLike makes a value of the same type that goes nowhere.
func valueLike(p any) value { return valueOf(reflect.New(reflect.TypeOf(p).Elem()).Interface()) }

// shortDuration is 10s and 720h where a Duration says 10s and 720h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// scalar is a value that one word says.
type scalar struct {
	kind string
	get  func() string
	set  func(string) error
}

func (v *scalar) String() string {
	if v.get == nil { // pflag asks a zero value for its text
		return ""
	}
	return v.get()
}
func (v *scalar) Set(s string) error   { return v.set(s) }
func (v *scalar) Type() string         { return v.kind }
func (v *scalar) reset(s string) error { return v.set(s) }
func (v *scalar) mayBeEmpty() bool     { return v.kind == "string" }
func (v *scalar) take(e entry) error {
	if e.list != nil || e.table != nil {
		return fmt.Errorf("must be a single value")
	}
	return v.set(e.text)
}

// list is several words, with commas between them. A flag that is given again
// adds to it.
type list struct {
	to    *[]string
	given bool
}

func (v *list) String() string {
	if v.to == nil {
		return ""
	}
	return strings.Join(*v.to, ",")
}
func (v *list) Type() string     { return "list" }
func (v *list) mayBeEmpty() bool { return true }
func (v *list) Set(s string) error {
	if !v.given {
		*v.to, v.given = nil, true
	}
	*v.to = append(*v.to, words(s)...)
	return nil
}

func (v *list) reset(s string) error { *v.to = words(s); return nil }

func (v *list) take(e entry) error {
	switch {
	case e.table != nil:
		return fmt.Errorf("must be a list")
	case e.list != nil:
		*v.to = e.list
		return nil
	}
	return v.reset(e.text)
}

// words splits at commas. Commas at the end and spaces around words mean
// nothing.
func words(s string) []string {
	var out []string
	for _, w := range strings.Split(s, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// table is names and their values, name=value, with commas between them.
type table struct {
	to    *map[string]string
	given bool
}

func (v *table) String() string {
	if v.to == nil {
		return ""
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(*v.to)) {
		out = append(out, k+"="+(*v.to)[k])
	}
	return strings.Join(out, ",")
}
func (v *table) Type() string     { return "name=value,..." }
func (v *table) mayBeEmpty() bool { return true }
func (v *table) Set(s string) error {
	was := *v.to
	if !v.given {
		was, v.given = nil, true
	}
	return v.add(was, words(s))
}
func (v *table) reset(s string) error { return v.add(nil, words(s)) }

func (v *table) add(to map[string]string, pairs []string) error {
	sum := map[string]string{}
	maps.Copy(sum, to)
	for _, pair := range pairs {
		name, val, ok := strings.Cut(pair, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return fmt.Errorf("%q is not name=value", pair)
		}
		sum[name] = strings.TrimSpace(val)
	}
	*v.to = sum
	return nil
}

func (v *table) take(e entry) error {
	switch {
	case e.table != nil:
		*v.to = e.table
		return nil
	case e.list != nil:
		return v.add(nil, e.list)
	}
	return v.reset(e.text)
}
