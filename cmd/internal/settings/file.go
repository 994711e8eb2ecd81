package settings

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// entry is a key of a config file with its value: a text, a list or a table.
// The syntax tree is read rather than decoded values, so that a name like 007
// stays what it is and errors can tell the line.
type entry struct {
	key   string
	place string // file:line
	text  string
	list  []string
	table map[string]string
}

// parse reads a config file.
func parse(path string, text []byte) ([]entry, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return nil, fmt.Errorf("%s:%d: %s", path, syntax.GetToken().Position.Line, syntax.GetMessage())
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var entries []entry
	seen := map[string]bool{}
	for i, doc := range file.Docs {
		if doc.Body == nil {
			continue // comments alone
		}
		if i > 0 {
			return nil, fmt.Errorf("%s: has several documents; it must be one", path)
		}
		pairs, ok := mapping(doc.Body)
		if !ok {
			return nil, fmt.Errorf("%s: must be keys with their values, such as `name: alpha`", path)
		}
		for _, pair := range pairs {
			e := entry{place: fmt.Sprintf("%s:%d", path, pair.GetToken().Position.Line)}
			if e.key, ok = plain(pair.Key); !ok {
				return nil, fmt.Errorf("%s: a key must be a plain name", e.place)
			}
			if seen[e.key] {
				return nil, fmt.Errorf("%s: key %q is given twice", e.place, e.key)
			}
			seen[e.key] = true
			if err := e.read(pair.Value); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", e.place, e.key, err)
			}
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func (e *entry) read(n ast.Node) error {
	if _, null := n.(*ast.NullNode); null || n == nil {
		return fmt.Errorf(`has no value; write "" for an empty one, or leave the key out`)
	}
	if seq, ok := n.(*ast.SequenceNode); ok {
		e.list = []string{}
		for _, v := range seq.Values {
			text, ok := plain(v)
			if !ok {
				return fmt.Errorf("an element of the list is no single value")
			}
			e.list = append(e.list, text)
		}
		return nil
	}
	if pairs, ok := mapping(n); ok {
		e.table = map[string]string{}
		for _, pair := range pairs {
			name, ok := plain(pair.Key)
			text, ok2 := plain(pair.Value)
			if !ok || !ok2 {
				return fmt.Errorf("a value in it is no single value")
			}
			if _, twice := e.table[name]; twice {
				return fmt.Errorf("%q is given twice", name)
			}
			e.table[name] = text
		}
		return nil
	}
	var ok bool
	if e.text, ok = plain(n); !ok {
		return fmt.Errorf("must be a value, a list or a table; anchors and tags are not supported")
	}
	return nil
}

func mapping(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode: // a mapping of one
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// plain returns a single value as it is written, without quotes.
func plain(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}
