package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// request is one request as it stands in a body; its slices point there.
type request struct {
	id     []byte // as JSON; nil in a notification
	method []byte
	params json.RawMessage
	bad    *Error // why it cannot be carried out; the id is that of the answer
}

// message is what a body holds: one request, or a batch.
type message struct {
	request
	isBatch bool
	batch   []request // at most MaxBatch of them
	size    int       // how many there are
}

// member is a set of members of a request.
type member uint8

const (
	memberVersion member = 1 << iota
	memberMethod
	memberParams
	memberID
)

var nullID = []byte("null")

// parser finds the requests in a body, where their params stand, and whether all of it is
// JSON, in one walk. Params are decoded by those who know their types.
type parser struct {
	body []byte
	buf  bytes.Buffer
	dec  jsontext.Decoder
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

// parse reads a body. The error says that it is not JSON in UTF-8.
func parse(body []byte) (message, *Error) {
	p := parsers.Get().(*parser)
	if len(body) <= maxPooled {
		defer parsers.Put(p)
	}
	p.body, p.buf = body, *bytes.NewBuffer(body)
	p.dec.Reset(&p.buf, lenient)
	m, err := p.message()
	if err == nil && utf8.Valid(body) {
		return m, nil
	}
	hint := "the body must be UTF-8"
	if utf8.Valid(body) {
		hint = "the body must be JSON"
		if problem := syntaxProblem(body); problem != "" {
			hint += ": " + problem
		}
	}
	return message{}, &Error{Code: CodeParse, Message: "parse error: " + hint, Data: ErrorData{Hint: hint}}
}

func (p *parser) message() (m message, err error) {
	if m.isBatch = p.dec.PeekKind() == '['; !m.isBatch {
		m.request, err = p.request()
	} else if _, err = p.dec.ReadToken(); err == nil {
		for ; err == nil && p.dec.PeekKind() != ']'; m.size++ {
			var r request
			if r, err = p.request(); m.size < MaxBatch {
				m.batch = append(m.batch, r)
			}
		}
		if err == nil {
			_, err = p.dec.ReadToken()
		}
	}
	if err != nil {
		return m, err
	}
	if _, err = p.dec.ReadToken(); errors.Is(err, io.EOF) {
		return m, nil
	}
	return m, errors.New("more than one value")
}

// value reads a value and returns where it stands in the body.
func (p *parser) value() ([]byte, error) {
	v, err := p.dec.ReadValue()
	end := p.dec.InputOffset()
	return p.body[end-int64(len(v)) : end : end], err
}

// request reads one request. Where it cannot be carried out, the id is that of the request
// where it could be read, else null.
func (p *parser) request() (r request, err error) {
	fail := func(field, hint string) {
		if r.bad == nil {
			r.bad = invalidRequest(field, hint)
		}
	}
	if p.dec.PeekKind() != '{' {
		fail("", "a request must be an object")
		r.id = nullID
		return r, p.dec.SkipValue()
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return r, err
	}
	var seen member
	for p.dec.PeekKind() != '}' {
		name, err := p.value()
		if err != nil {
			return r, err
		}
		value, err := p.value()
		if err != nil {
			return r, err
		}
		var m member
		switch name = unquote(name); string(name) {
		case "jsonrpc":
			m = memberVersion
			if value[0] != '"' || string(unquote(value)) != "2.0" {
				fail("jsonrpc", `jsonrpc must be "2.0"`)
			}
		case "method":
			m = memberMethod
			if value[0] != '"' {
				fail("method", "method must be a string")
				break
			}
			r.method = unquote(value)
		case "params":
			m = memberParams
			switch value[0] {
			case '{', '[':
				r.params = value
			case 'n': // as good as left out
			default:
				fail("params", "params must be an object or an array")
			}
		case "id":
			m = memberID
			switch r.id = value; {
			case len(value) > MaxID:
				r.id = nullID
				fail("id", "id must have at most 1024 bytes")
			case value[0] == '"', value[0] == '-', '0' <= value[0] && value[0] <= '9', value[0] == 'n':
			default:
				r.id = nullID
				fail("id", "id must be a string, a number or null")
			}
		}
		if seen&m != 0 { // which of the two is meant would be a guess
			fail(string(name), string(name)+" is given twice")
		}
		seen |= m
	}
	switch {
	case seen&memberVersion == 0:
		fail("jsonrpc", `jsonrpc is missing; must be "2.0"`)
	case seen&memberMethod == 0:
		fail("method", "method is missing")
	}
	if r.bad != nil && r.id == nil {
		r.id = nullID
	}
	_, err = p.dec.ReadToken()
	return r, err
}

// unquote returns what a string in quotes stands for.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	text, _ := jsontext.AppendUnquote(nil, quoted) // with U+FFFD for what is no Unicode
	return text
}
