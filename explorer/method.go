package explorer

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Prefix stands before every method's name. The bare name works too.
const Prefix = "ExplorerService."

// bareName returns a method's name without the prefix.
func bareName(method string) string { return strings.TrimPrefix(method, Prefix) }

// method is one method of the API: what it does and all that the OpenRPC
// document says about it.
type method struct {
	name    string // bare
	summary string
	access  access
	params  reflect.Type // a struct; nil: none
	open    bool         // further params are allowed
	result  reflect.Type // nil: whatever the node answers
	// errors are the own codes that it can answer with, besides those that
	// every method has.
	errors []int
	handle jsonrpc.Handler
}

// takes makes a handler of a function with typed params, and tells the types
// to the method, where it does not say itself what the result is. A field that is tagged
// `need:"true"` must be given, and not be zero.
func takes[P, R any](m method, f func(ctx context.Context, params P) (R, error)) method {
	m.params = reflect.TypeFor[P]()
	if m.result == nil {
		m.result = reflect.TypeFor[R]()
	}
	var need []int
	for i := range m.params.NumField() {
		if m.params.Field(i).Tag.Get("need") != "" {
			need = append(need, i)
		}
	}
	m.handle = func(ctx context.Context, raw json.RawMessage) (any, error) {
		var p P
		if err := jsonrpc.DecodeParams(raw, &p); err != nil {
			return nil, err
		}
		for _, i := range need {
			if reflect.ValueOf(&p).Elem().Field(i).IsZero() {
				return nil, badField(jsonName(m.params.Field(i)), "is missing")
			}
		}
		return f(ctx, p)
	}
	return m
}

// methods returns the methods in the order of the document.
func (s *Server) methods() []method {
	var all []method
	all = append(all, s.nodeMethods()...)
	all = append(all, s.vmMethods()...)
	all = append(all, s.gridMethods()...)
	all = append(all, s.eventMethods()...)
	return all
}

// knownMethod reports whether there is a method of that name, with or without the prefix.
func knownMethod(name string) bool {
	return slices.ContainsFunc(new(Server).methods(), func(m method) bool { return m.name == bareName(name) })
}

// route registers every method by its name, its prefixed name and its aliases.
func (s *Server) route() {
	handlers := map[string]jsonrpc.Handler{}
	for _, m := range s.methods() {
		handlers[m.name] = s.handle(&s.rpc, m)
	}
	for alias, name := range s.cfg.Aliases {
		s.rpc.Handle(alias, handlers[bareName(name)])
	}
}

// handle registers a method under its names.
func (s *Server) handle(mux *jsonrpc.Mux, m method) jsonrpc.Handler {
	h := s.guard(m)
	mux.Handle(m.name, h)
	mux.Handle(Prefix+m.name, h)
	return h
}

// guard puts what all methods have in common around a handler: who may call
// it, what is measured, and the shape of its errors.
func (s *Server) guard(m method) jsonrpc.Handler {
	observe := s.metrics.method(m.name)
	return func(ctx context.Context, params json.RawMessage) (any, error) {
		began := time.Now()
		result, err := any(nil), error(nil)
		if m.access != accessOpen || s.cfg.Auth == AuthAll {
			err = s.allow(callerOf(ctx), m.access)
		}
		if err == nil {
			result, err = m.handle(ctx, params)
		}
		if err != nil {
			wire := s.wireError(m.name, err)
			observe.failed(wire.Code, time.Since(began))
			return nil, wire
		}
		observe.done(time.Since(began))
		return result, nil
	}
}
