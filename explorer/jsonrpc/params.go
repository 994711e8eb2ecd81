package jsonrpc

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// lenient is what encoding/json takes: of a member given twice the last one counts, and
// U+FFFD stands for what is no Unicode.
var lenient = jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// strict matches names exactly and refuses those that a type does not know.
var strict = jsonv2.JoinOptions(lenient, jsonv2.RejectUnknownMembers(true))

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
	if err := jsonv2.Unmarshal(object, into, strict); err != nil {
		return fieldError(object, reflect.TypeOf(into), err)
	}
	return nil
}

// Named returns params by name: as they are, or the one object in an array; nil is an
// object without members. An error is an [*Error] with [CodeInvalidParams].
func Named(params json.RawMessage) (json.RawMessage, error) {
	if len(bytes.TrimSpace(params)) == 0 {
		return json.RawMessage("{}"), nil
	}
	switch kindOf(params) {
	case '{':
		return params, nil
	case 'n', '[':
		var list []json.RawMessage
		if json.Unmarshal(params, &list) != nil {
			break
		}
		if len(list) == 0 {
			return json.RawMessage("{}"), nil
		}
		if len(list) == 1 && kindOf(list[0]) == '{' {
			return list[0], nil
		}
	}
	return nil, InvalidParams("params", "must be an object, or an array with one object in it")
}

// kindOf returns the first byte of a value, which tells its kind: 0 for all numbers.
func kindOf(value []byte) jsontext.Kind { return jsontext.Value(value).Kind() }

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

// fieldError says which field an error of decoding an object is about, and what is wrong
// with it, in words of JSON.
func fieldError(object json.RawMessage, into reflect.Type, err error) *Error {
	if problem := syntaxProblem(object); problem != "" {
		return InvalidParams("params", "must be JSON: "+problem)
	}
	var at *jsonv2.SemanticError
	if !errors.As(err, &at) {
		return InvalidParams("params", "cannot be taken: "+err.Error())
	}
	field := fieldAt(into, at.JSONPointer)
	if errors.Is(err, jsonv2.ErrUnknownName) {
		return InvalidParams(field, "is not known"+suggest(at.GoType))
	}
	want := wanted(at.GoType)
	if want == "" || at.JSONKind == 0 {
		if at.Err != nil {
			err = at.Err
		}
		return InvalidParams(field, "cannot be taken: "+err.Error())
	}
	is := map[jsontext.Kind]string{'{': "an object", '[': "an array", '"': "a string", 't': "true", 'f': "false"}[at.JSONKind]
	if is == "" {
		var number json.RawMessage
		_ = json.NewDecoder(bytes.NewReader(object[at.ByteOffset:])).Decode(&number)
		is = clip(string(number))
	}
	return InvalidParams(field, "must be "+want+", not "+is)
}

// syntaxProblem says why something is not JSON, as encoding/json does; empty: it is.
func syntaxProblem(text []byte) string {
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		return err.Error()
	}
	return ""
}

// fieldAt is what errors call a place in what is decoded into a type.
func fieldAt(t reflect.Type, at jsontext.Pointer) (field string) {
	for name := range at.Tokens() {
		t = pointedTo(t)
		switch t.Kind() {
		case reflect.Slice, reflect.Array:
			field, t = field+"["+name+"]", t.Elem()
			continue
		case reflect.Map:
			t = t.Elem()
		case reflect.Struct:
			if of, known := fieldsOf(t)[name]; known {
				t = of
			}
		}
		if field != "" {
			field += "."
		}
		field += clip(name)
	}
	if field == "" {
		return "params"
	}
	return field
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

func pointedTo(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// fieldsOf returns the fields of a struct as JSON names them, those of embedded structs
// too.
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
func suggest(t reflect.Type) string {
	names := slices.Sorted(maps.Keys(fieldsOf(t)))
	if len(names) == 0 {
		return "; there are no fields"
	}
	return "; there are " + strings.Join(names, ", ")
}

// wanted says in words of JSON what a type takes; empty: it decides for itself.
func wanted(t reflect.Type) string {
	t = pointedTo(t)
	if p := reflect.PointerTo(t); p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return ""
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "an integer of " + strconv.Itoa(t.Bits()) + " bits"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "an integer of " + strconv.Itoa(t.Bits()) + " bits, not negative"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string in base64"
		}
		return "an array"
	}
	return ""
}
