package jsonrpc

import (
	"encoding/json"
	"unicode/utf8"
)

// request is one request as it stands in a body; its slices point there.
type request struct {
	id     []byte // as JSON; nil in a notification
	method []byte
	params json.RawMessage
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

// valid returns an error unless the body is JSON in UTF-8.
func valid(body []byte) *Error {
	hint := ""
	switch {
	case !utf8.Valid(body):
		hint = "the body must be UTF-8"
	case !json.Valid(body):
		var v json.RawMessage
		hint = "the body must be JSON"
		if err := json.Unmarshal(body, &v); err != nil {
			hint += ": " + err.Error()
		}
	default:
		return nil
	}
	return &Error{Code: CodeParse, Message: "parse error: " + hint, Data: ErrorData{Hint: hint}}
}

// parseRequest reads a request out of valid JSON. With an error, the id is the
// one of the answer: that of the request where it could be read, else null.
func parseRequest(b []byte) (r request, err *Error) {
	if first(b) != '{' {
		return request{id: nullID}, invalidRequest("", "a request must be an object")
	}
	fail := func(field, hint string) {
		if err == nil {
			err = invalidRequest(field, hint)
		}
	}
	var seen member
	for c := enter(b); ; {
		name, value, ok := c.member()
		if !ok {
			break
		}
		var m member
		switch string(name) {
		case "jsonrpc":
			m = memberVersion
			if value[0] != '"' || string(plainString(value)) != "2.0" {
				fail("jsonrpc", `jsonrpc must be "2.0"`)
			}
		case "method":
			m = memberMethod
			if value[0] != '"' {
				fail("method", "method must be a string")
				break
			}
			r.method = plainString(value)
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
	if err != nil && r.id == nil {
		r.id = nullID
	}
	return r, err
}
