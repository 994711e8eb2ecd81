package compute

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Bounds on what a caller may say.
const (
	maxText     = 256     // bytes of a name, sid, image or secret
	maxCPU      = 1024    // cores
	minMemory   = 1 << 20 // bytes
	maxMemory   = 1 << 44 // bytes
	maxLogLines = 1000
	maxArgs     = 256
	maxArgBytes = 64 << 10 // of a whole command
)

// What a VM gets when the caller does not say.
const (
	defaultImage    = "debian-13"
	defaultCPU      = 1
	defaultMemory   = 1 << 30
	defaultLogLines = 100
)

// methods are the VM calls by their bare names.
func (s *Service) methods() map[string]jsonrpc.Handler {
	return map[string]jsonrpc.Handler{
		"deploy_vm":  s.rpcDeploy,
		"start_vm":   vmCall(s.Start),
		"stop_vm":    vmCall(s.Stop),
		"restart_vm": vmCall(s.Restart),
		"delete_vm":  vmCall(s.Delete),
		"get_vm":     vmCall(func(_ context.Context, sid, secret string) (VM, error) { return s.Get(sid, secret) }),
		"list_vms":   s.rpcList,
		"vm_stats":   s.rpcStats,
		"vm_logs":    s.rpcLogs,
		"vm_exec":    s.rpcExec,
		"calls":      func(context.Context, json.RawMessage) (any, error) { return s.calls.snapshot(), nil },
	}
}

// vmParams name one VM.
type vmParams struct {
	SID    string `json:"sid"`
	Secret string `json:"secret"`
}

func (p vmParams) validate() error {
	if p.SID == "" {
		return invalid("sid", "is missing")
	}
	if err := validText("sid", p.SID); err != nil {
		return err
	}
	return validText("secret", p.Secret)
}

// vmCall makes a handler of a call that takes a VM and answers with it.
func vmCall(call func(ctx context.Context, sid, secret string) (VM, error)) jsonrpc.Handler {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var p vmParams
		if err := jsonrpc.DecodeParams(raw, &p); err != nil {
			return nil, err
		}
		if err := p.validate(); err != nil {
			return nil, err
		}
		vm, err := call(ctx, p.SID, p.Secret)
		if err != nil {
			return nil, err
		}
		return vm, nil
	}
}

func (s *Service) rpcDeploy(ctx context.Context, raw json.RawMessage) (any, error) {
	var p struct {
		Name     string  `json:"name"`
		Image    string  `json:"image"`
		CPU      *uint64 `json:"cpu"`
		CPUCount *uint64 `json:"cpu_count"`
		Memory   *uint64 `json:"memory"`
		MemoryMB *uint64 `json:"memory_mb"`
		SliceSID string  `json:"slice_sid"`
		Secret   string  `json:"secret"`
	}
	if err := jsonrpc.DecodeParams(raw, &p); err != nil {
		return nil, err
	}
	if p.Name == "" {
		return nil, invalid("name", "is missing")
	}
	for _, t := range []struct{ field, value string }{
		{"name", p.Name}, {"image", p.Image}, {"slice_sid", p.SliceSID}, {"secret", p.Secret},
	} {
		if err := validText(t.field, t.value); err != nil {
			return nil, err
		}
	}
	cpu, err := either("cpu", p.CPU, "cpu_count", p.CPUCount, 1, defaultCPU, 1, maxCPU)
	if err != nil {
		return nil, err
	}
	memory, err := either("memory", p.Memory, "memory_mb", p.MemoryMB, 1<<20, defaultMemory, minMemory, maxMemory)
	if err != nil {
		return nil, err
	}
	if p.Image == "" {
		p.Image = defaultImage
	}
	vm, err := s.Deploy(ctx, Deployment{
		Name: p.Name, Image: p.Image, CPU: cpu, Memory: memory, SliceSID: p.SliceSID, Secret: p.Secret,
	})
	if err != nil {
		return nil, err
	}
	return vm, nil
}

// either returns the one of two spellings of a quantity that is given, the
// second of which counts in units.
func either(name string, v *uint64, otherName string, other *uint64, unit, otherwise, low, high uint64) (uint64, error) {
	switch {
	case v != nil && other != nil:
		return 0, invalid(otherName, "says the same as %s; give one of them", name)
	case other != nil:
		low, high = low/unit, high/unit
		name, v = otherName, other
	case v != nil:
		unit = 1
	default:
		return otherwise, nil
	}
	if *v < low || *v > high {
		return 0, invalid(name, "is %d, must lie between %d and %d", *v, low, high)
	}
	return *v * unit, nil
}

func (s *Service) rpcList(_ context.Context, raw json.RawMessage) (any, error) {
	var p struct {
		Secret string `json:"secret"`
	}
	if err := jsonrpc.DecodeParams(raw, &p); err != nil {
		return nil, err
	}
	if err := validText("secret", p.Secret); err != nil {
		return nil, err
	}
	return s.List(p.Secret), nil
}

// vmStats is the answer to vm_stats.
type vmStats struct {
	SID   string `json:"sid"`
	State State  `json:"state"`
	Stats
	Memory uint64 `json:"memory"` // bytes that the VM was given
}

func (s *Service) rpcStats(ctx context.Context, raw json.RawMessage) (any, error) {
	var p vmParams
	if err := jsonrpc.DecodeParams(raw, &p); err != nil {
		return nil, err
	}
	if err := p.validate(); err != nil {
		return nil, err
	}
	vm, st, err := s.Stats(ctx, p.SID, p.Secret)
	if err != nil {
		return nil, err
	}
	return vmStats{SID: vm.SID, State: vm.State, Stats: st, Memory: vm.Memory}, nil
}

// vmLogs is the answer to vm_logs.
type vmLogs struct {
	SID   string   `json:"sid"`
	Lines []string `json:"lines"`
}

func (s *Service) rpcLogs(ctx context.Context, raw json.RawMessage) (any, error) {
	var p struct {
		vmParams
		Lines *int `json:"lines"`
	}
	if err := jsonrpc.DecodeParams(raw, &p); err != nil {
		return nil, err
	}
	if err := p.validate(); err != nil {
		return nil, err
	}
	lines := defaultLogLines
	if p.Lines != nil {
		lines = *p.Lines
	}
	if lines < 1 || lines > maxLogLines {
		return nil, invalid("lines", "is %d, must lie between 1 and %d", lines, maxLogLines)
	}
	log, err := s.Logs(ctx, p.SID, p.Secret, lines)
	if err != nil {
		return nil, err
	}
	return vmLogs{SID: p.SID, Lines: log}, nil
}

func (s *Service) rpcExec(ctx context.Context, raw json.RawMessage) (any, error) {
	var p struct {
		vmParams
		Command command `json:"command"`
	}
	if err := jsonrpc.DecodeParams(raw, &p); err != nil {
		return nil, err
	}
	if err := p.validate(); err != nil {
		return nil, err
	}
	if err := p.Command.validate(); err != nil {
		return nil, err
	}
	res, err := s.Exec(ctx, p.SID, p.Secret, p.Command)
	if err != nil {
		return nil, err
	}
	return res, nil
}

// command is a program and its arguments: in JSON an array of strings, or one
// string that is split at spaces.
type command []string

func (c *command) UnmarshalJSON(data []byte) error {
	var line string
	if json.Unmarshal(data, &line) == nil {
		*c = strings.Fields(line)
		return nil
	}
	if json.Unmarshal(data, (*[]string)(c)) != nil {
		return errors.New("give a string or an array of strings")
	}
	return nil
}

func (c command) validate() error {
	if len(c) == 0 || c[0] == "" {
		return invalid("command", "is missing; give a string or an array of strings")
	}
	size := 0
	for _, arg := range c {
		size += len(arg)
	}
	if len(c) > maxArgs || size > maxArgBytes {
		return invalid("command", "has %d words with %d bytes, at most %d and %d are allowed", len(c), size, maxArgs, maxArgBytes)
	}
	return nil
}

func validText(field, s string) error {
	if len(s) > maxText {
		return invalid(field, "has %d bytes, at most %d are allowed", len(s), maxText)
	}
	if !utf8.ValidString(s) {
		return invalid(field, "is not valid UTF-8")
	}
	return nil
}
