package jsonrpc

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// DecodeParams decodes params, given by name or as one positional object, into
// what a pointer points to. nil is an object without members. An error is an
// [*Error] with [CodeInvalidParams] whose data names the field: one that is not
// known, wherever it stands, or one of a wrong type. Names are matched exactly.
// Types with an UnmarshalJSON of their own decide for themselves what they take.
func DecodeParams(params json.RawMessage, into any) error {
	object, err := Named(params)
	if err != nil {
		return err
	}
	to := reflect.TypeOf(into)
	if to == nil || to.Kind() != reflect.Pointer {
		panic(fmt.Sprintf("jsonrpc: cannot decode params into %T, which is no pointer", into))
	}
	// The decoder checks the syntax, so it goes first.
	decodeErr := json.Unmarshal(object, into)
	if decodeErr != nil && !json.Valid(object) {
		return InvalidParams("params", "must be JSON: "+decodeErr.Error())
	}
	if err := check(object, to.Elem(), path{}, decodeErr != nil); err != nil {
		return err
	}
	if decodeErr != nil { // check knows better, so this is about no one field
		return InvalidParams("params", "cannot be taken: "+decodeErr.Error())
	}
	return nil
}

// Named returns params by name: as they are, or the one object in an array; nil is an
// object without members. An error is an [*Error] with [CodeInvalidParams].
func Named(params json.RawMessage) (json.RawMessage, error) {
	if skipSpace(params, 0) == len(params) {
		return json.RawMessage("{}"), nil
	}
	switch first(params) {
	case '{':
		return params, nil
	case 'n':
		if json.Valid(params) {
			return json.RawMessage("{}"), nil
		}
	case '[':
		if !json.Valid(params) {
			break
		}
		c := enter(params)
		one, ok := c.element()
		if !ok {
			return json.RawMessage("{}"), nil
		}
		if _, more := c.element(); !more && one[0] == '{' {
			return one, nil
		}
	}
	return nil, InvalidParams("params", "must be an object, or an array with one object in it")
}

// EncodeObject encodes an object with its members in the order of their names. It does
// not touch their values, as json.Marshal would by escaping and compacting them. Whoever
// gives a call another name or other members sends all else byte for byte, so that it
// can be told from another call.
func EncodeObject(members map[string]json.RawMessage) json.RawMessage {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = appendValue(b, name) // a text always encodes
		b = append(append(b, ':'), members[name]...)
	}
	return append(b, '}')
}

// path is where a value stands, as a list that is only spelled out for errors.
type path struct {
	up    *path
	name  []byte // of a member; nil: an element
	index int
}

func (p *path) String() string {
	if p.up == nil {
		return ""
	}
	s := p.up.String()
	switch {
	case p.name == nil:
		return s + "[" + strconv.Itoa(p.index) + "]"
	case s == "":
		return clip(string(p.name))
	}
	return s + "." + clip(string(p.name))
}

func clip(name string) string {
	if name == "" {
		return `""`
	}
	if len(name) > 128 {
		return name[:128] + "..."
	}
	return name
}

// check walks over valid JSON beside the type that it was decoded into, and
// returns an error for the first member that the type does not know. With
// types, values that do not fit their type are found as well; that is slow, and
// only needed to say which one it was.
func check(b []byte, t reflect.Type, at path, types bool) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s := shapeOf(t)
	kind := first(b)
	switch {
	case s.opaque || kind == 'n':
	case s.fields != nil && kind == '{':
		for c := enter(b); ; {
			name, value, ok := c.member()
			if !ok {
				return nil
			}
			below := path{up: &at, name: name}
			of, known := s.fields[string(name)]
			if !known {
				return InvalidParams(below.String(), "is not known"+s.suggest())
			}
			if first(value) != '{' && first(value) != '[' && !types {
				continue // nothing to look for inside
			}
			if err := check(value, of, below, types); err != nil {
				return err
			}
		}
	case s.elem != nil && kind == '{' && t.Kind() == reflect.Map:
		for c := enter(b); ; {
			name, value, ok := c.member()
			if !ok {
				return nil
			}
			if err := check(value, s.elem, path{up: &at, name: name}, types); err != nil {
				return err
			}
		}
	case s.elem != nil && kind == '[' && t.Kind() != reflect.Map:
		c := enter(b)
		for i := 0; ; i++ {
			value, ok := c.element()
			if !ok {
				return nil
			}
			if err := check(value, s.elem, path{up: &at, index: i}, types); err != nil {
				return err
			}
		}
	}
	if !types {
		return nil
	}
	if err := json.Unmarshal(b, reflect.New(t).Interface()); err != nil {
		field := at.String()
		if field == "" {
			field = "params"
		}
		return InvalidParams(field, s.problem(b, err))
	}
	return nil
}

// shape is what check needs to know of a type.
type shape struct {
	opaque bool                    // decodes itself, or takes anything
	fields map[string]reflect.Type // of a struct
	elem   reflect.Type            // of a map, slice or array
	t      reflect.Type
}

var shapes sync.Map // reflect.Type to *shape

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := &shape{t: t}
	p := reflect.PointerTo(t)
	switch {
	case p.Implements(jsonUnmarshaler), p.Implements(textUnmarshaler), t.Kind() == reflect.Interface:
		s.opaque = true
	case t.Kind() == reflect.Struct:
		s.fields = fieldsOf(t)
	case t.Kind() == reflect.Map, t.Kind() == reflect.Array, t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		s.elem = t.Elem()
	}
	kept, _ := shapes.LoadOrStore(t, s)
	return kept.(*shape)
}

// fieldsOf returns the fields of a struct as encoding/json names them, those of
// embedded structs too.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = f.Type
	}
	return fields
}

// suggest lists the fields that there are.
func (s *shape) suggest() string {
	if len(s.fields) == 0 {
		return "; there are no fields"
	}
	return "; there are " + strings.Join(slices.Sorted(maps.Keys(s.fields)), ", ")
}

// problem says what is wrong with a value, in words of JSON.
func (s *shape) problem(b []byte, err error) string {
	if s.opaque {
		return "cannot be taken: " + err.Error()
	}
	want := ""
	switch s.t.Kind() {
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		want = "an integer of " + strconv.Itoa(s.t.Bits()) + " bits"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		want = "an integer of " + strconv.Itoa(s.t.Bits()) + " bits, not negative"
	case reflect.Float32, reflect.Float64:
		want = "a number"
	case reflect.String:
		want = "a string"
	case reflect.Struct, reflect.Map:
		want = "an object"
	case reflect.Slice, reflect.Array:
		want = "an array"
		if s.elem == nil {
			want = "a string in base64"
		}
	default:
		return "cannot be taken: " + err.Error()
	}
	is := map[byte]string{'{': "an object", '[': "an array", '"': "a string", 't': "true", 'f': "false"}[first(b)]
	if is == "" {
		is = clip(string(b)) // a number
	}
	return "must be " + want + ", not " + is
}
