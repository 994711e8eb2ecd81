package explorer

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// openRPCVersion is the version of the specification that the document keeps
// to: https://spec.open-rpc.org
const openRPCVersion = "1.3.2"

// codes are the errors by code. The first six can happen to every method.
var codes = []struct {
	code    int
	message string
	common  bool
}{
	{jsonrpc.CodeParse, "parse error", true},
	{jsonrpc.CodeInvalidRequest, "invalid request", true},
	{jsonrpc.CodeMethodNotFound, "method not found", false},
	{jsonrpc.CodeInvalidParams, "invalid params; data.field names the field", true},
	{jsonrpc.CodeInternal, "internal error", true},
	{jsonrpc.CodeNodeNotFound, "node not found", false},
	{jsonrpc.CodeNodeOffline, "node offline; nothing was sent", false},
	{jsonrpc.CodeCannotReach, "cannot reach the node; nothing was sent", false},
	{jsonrpc.CodeOutcomeUnknown, "outcome unknown; the call was sent and not answered", false},
	{jsonrpc.CodeUnauthorized, "unauthorized", false},
	{jsonrpc.CodeRefusedIdentity, "refused identity: key mismatch, bad signature or removed boot", false},
	{jsonrpc.CodeLimit, "limit; data.retry_after_s says when to try again", false},
	{jsonrpc.CodeNotFound, "VM or master not found", false},
	{jsonrpc.CodeUnknownCursor, "unknown cursor", false},
	{jsonrpc.CodeMethodNotAllowed, "method not allowed", false},
}

type (
	openRPCDoc struct {
		OpenRPC    string          `json:"openrpc"`
		Info       map[string]any  `json:"info"`
		Servers    []openRPCServer `json:"servers"`
		Methods    []openRPCMethod `json:"methods"`
		Components map[string]any  `json:"components"`
	}
	openRPCServer struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	}
	openRPCMethod struct {
		Name           string         `json:"name"`
		Summary        string         `json:"summary"`
		Description    string         `json:"description,omitempty"`
		ParamStructure string         `json:"paramStructure"`
		Params         []openRPCParam `json:"params"`
		Result         openRPCResult  `json:"result"`
		Errors         []schema       `json:"errors"`
	}
	openRPCParam struct {
		Name        string `json:"name"`
		Description string `json:"description,omitempty"`
		Required    bool   `json:"required"`
		Schema      schema `json:"schema"`
	}
	openRPCResult struct {
		Name   string `json:"name"`
		Schema schema `json:"schema"`
	}
)

// openRPC returns the document, which is made once.
func (s *Server) openRPC() json.RawMessage {
	s.docOnce.Do(func() { s.doc = mustEncode(s.makeOpenRPC()) })
	return s.doc
}

func (s *Server) makeOpenRPC() openRPCDoc {
	types := &schemas{named: map[string]schema{}}
	doc := openRPCDoc{
		OpenRPC: openRPCVersion,
		Info: map[string]any{
			"title": serviceTitle, "version": s.cfg.Version,
			"description": serviceAbout + " Params go by name, or as one object in a list. The prefix " + Prefix + " of a method may be left out.",
			"license":     map[string]string{"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
		},
		Servers: []openRPCServer{},
		Methods: []openRPCMethod{},
	}
	for _, u := range s.rpcURLs {
		doc.Servers = append(doc.Servers, openRPCServer{serviceName, u + "/rpc"})
	}
	for _, m := range s.methods() {
		doc.Methods = append(doc.Methods, m.document(types))
	}
	errors := map[string]any{}
	for _, c := range codes {
		errors[errorName(c.code)] = schema{"code": c.code, "message": c.message, "data": types.of(reflect.TypeFor[errorData]())}
	}
	doc.Components = map[string]any{"schemas": types.named, "errors": errors}
	return doc
}

func (m method) document(types *schemas) openRPCMethod {
	out := openRPCMethod{
		Name: Prefix + m.name, Summary: m.summary, ParamStructure: "by-name",
		Params: []openRPCParam{}, Result: openRPCResult{Name: "result", Schema: schema{}},
	}
	if m.name == "rpc.discover" { // its name is fixed by the specification
		out.Name = m.name
	}
	switch m.access {
	case accessVM, accessAdmin:
		out.Description = "Beyond unix socket and loopback a bearer token is needed."
	}
	if m.open && m.result == nil {
		out.Description += " Params that are not named here go to the node as they are."
	} else if m.open {
		out.Description += "Params that are not named here are ignored."
	}
	if m.params != nil {
		for _, f := range fields(m.params) {
			out.Params = append(out.Params, openRPCParam{
				Name: jsonName(f), Description: describe(m.params, f),
				Required: f.Tag.Get("need") != "" || slices.Contains(needed[m.params], jsonName(f)),
				Schema:   types.of(f.Type),
			})
		}
	}
	switch {
	case m.name == "rpc.discover":
		out.Result.Schema = schema{"type": "object", "description": "This document."}
	case m.result != nil:
		out.Result.Schema = types.of(m.result)
	default:
		out.Result.Schema = schema{"description": "Whatever the node answers."}
	}
	for _, c := range codes {
		if c.common || slices.Contains(m.errors, c.code) {
			out.Errors = append(out.Errors, schema{"$ref": "#/components/errors/" + errorName(c.code)})
		}
	}
	return out
}

func errorName(code int) string { return "E" + strconv.Itoa(-code) }
