package jsonrpc

import "encoding/json"

// The functions here walk over JSON that json.Valid has accepted, so they need
// not look for errors. They exist because encoding/json would decode, copy and
// check the same bytes several times on the way from an envelope to its params.

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// first returns the first byte of a value, which tells its kind, or 0 where
// there is none.
func first(b []byte) byte {
	if i := skipSpace(b, 0); i < len(b) {
		return b[i]
	}
	return 0
}

// skipString returns the index behind the string that begins at i.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipValue returns the index behind the value that begins at i.
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\n', '\t', '\r':
			i++
			continue // only inside of a value: depth > 0
		default: // number, true, false, null
			for i++; i < len(b) && !ends(b[i]); i++ {
			}
		}
		if depth == 0 {
			return i
		}
	}
	return i
}

func ends(c byte) bool {
	switch c {
	case ',', ':', '}', ']', ' ', '\n', '\t', '\r':
		return true
	}
	return false
}

// cursor walks over the members of an object or the elements of an array.
type cursor struct {
	b []byte
	i int
}

// enter begins at the first member of an object or element of an array.
func enter(b []byte) cursor { return cursor{b, skipSpace(b, 0) + 1} }

// member returns the next name and value. The name has no escapes left in it.
func (c *cursor) member() (name, value []byte, ok bool) {
	if !c.more() {
		return nil, nil, false
	}
	end := skipString(c.b, c.i)
	name = plainString(c.b[c.i:end])
	c.i = skipSpace(c.b, end) + 1 // the colon
	return name, c.value(), true
}

// element returns the next element.
func (c *cursor) element() (value []byte, ok bool) {
	if !c.more() {
		return nil, false
	}
	return c.value(), true
}

func (c *cursor) more() bool {
	if c.i = skipSpace(c.b, c.i); c.i < len(c.b) && c.b[c.i] == ',' {
		c.i = skipSpace(c.b, c.i+1)
	}
	return c.i < len(c.b) && c.b[c.i] != '}' && c.b[c.i] != ']'
}

func (c *cursor) value() []byte {
	begin := skipSpace(c.b, c.i)
	c.i = skipValue(c.b, begin)
	return c.b[begin:c.i:c.i]
}

// plainString returns what a string in quotes stands for.
func plainString(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	for _, c := range inner {
		if c == '\\' {
			var s string
			if json.Unmarshal(quoted, &s) == nil {
				return []byte(s)
			}
			break
		}
	}
	return inner
}
