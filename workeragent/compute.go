package workeragent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// listMethods are the names under which a compute service may list its VMs.
var listMethods = []string{"list_vms", "ComputeService.list_vms"}

// vmUnknown is the state of VMs of which the compute service says nothing more.
const vmUnknown = "unknown"

// computeTimeout is how long the compute service may take to list its VMs.
const computeTimeout = 5 * time.Second

// watcher keeps the node's VM list current.
type watcher struct {
	node  *node
	call  caller
	poll  time.Duration
	grace time.Duration
	log   *slog.Logger
	// carriedOut has a token when the VMs may have changed; nil: nobody says so.
	carriedOut <-chan struct{}

	method int // which of listMethods the service has
	vms    []record.VM
	seenAt time.Time // when it answered last; zero: never
	odd    string    // what the log said last of entries left out

	mu     sync.Mutex // guards status
	status ComputeStatus
}

func newWatcher(n *node, address string, call caller, poll, grace time.Duration, log *slog.Logger) *watcher {
	return &watcher{node: n, call: call, poll: poll, grace: grace, log: log.With("compute", address),
		status: ComputeStatus{Address: address, State: ComputeAbsent, Since: time.Now()}}
}

func (w *watcher) get() ComputeStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// run looks at the VMs until ctx ends. It calls ready after the first look.
func (w *watcher) run(ctx context.Context, ready func()) {
	defer w.call.Close()
	defer ready()
	for ctx.Err() == nil {
		w.look(ctx)
		ready()
		pause(ctx, jittered(w.poll), w.carriedOut)
	}
}

// look asks for the VMs once.
func (w *watcher) look(ctx context.Context) {
	vms, err := w.list(ctx)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	switch {
	case err == nil:
		w.seenAt, w.vms = now, vms
		w.node.setVMs(vms)
		w.enter(ComputeOK, nil)
	case w.seenAt.IsZero():
		w.enter(ComputeAbsent, err)
	case now.Sub(w.seenAt) <= w.grace:
		w.enter(ComputeLost, err)
	default:
		gone := slices.Clone(w.vms)
		for i := range gone {
			gone[i].State = vmUnknown
		}
		w.node.setVMs(gone)
		w.enter(ComputeUnknown, err)
	}
}

// enter notes the state, and logs it when it has changed.
func (w *watcher) enter(state string, err error) {
	w.mu.Lock()
	was := w.status.State
	w.status.LastError = ""
	if err != nil {
		w.status.LastError = err.Error()
	}
	if was != state {
		w.status.State, w.status.Since = state, time.Now()
	}
	w.mu.Unlock()
	if was == state {
		return
	}
	switch state {
	case ComputeOK:
		w.log.Info("compute service answers", "vms", len(w.vms))
	case ComputeLost:
		w.log.Warn("compute service stopped answering; VMs stay listed as they were", "grace", w.grace, "error", err)
	case ComputeUnknown:
		w.log.Warn("compute service still does not answer; the state of its VMs is unknown", "error", err)
	}
}

// list asks the compute service for its VMs, by whichever name it knows.
func (w *watcher) list(ctx context.Context) ([]record.VM, error) {
	ctx, cancel := context.WithTimeout(ctx, computeTimeout)
	defer cancel()
	var err error
	for range listMethods {
		var raw json.RawMessage
		err = w.call.Call(ctx, listMethods[w.method], struct{}{}, &raw)
		var rpc *jsonrpc.Error
		if errors.As(err, &rpc) && rpc.Code == jsonrpc.CodeMethodNotFound {
			w.method = (w.method + 1) % len(listMethods)
			continue
		}
		if err != nil {
			return nil, err
		}
		vms, odd, err := decodeVMs(raw)
		if err == nil && odd != w.odd {
			w.odd = odd
			trouble := ""
			if odd != "" {
				w.log.Warn("some VMs cannot be listed", "problem", odd)
				trouble = "some VMs cannot be listed: " + odd
			}
			w.node.setTrouble(aboutVMs, trouble)
		}
		return vms, err
	}
	return nil, err
}

// decodeVMs reads a list of VMs, or an object with the list under "vms",
// ordered by sid. Of each it reads only what it knows, so no secret can slip
// through. An entry that cannot be listed is left out and counted in odd, for it
// must not keep the node itself from being listed.
func decodeVMs(raw json.RawMessage) (vms []record.VM, odd string, err error) {
	var entries []json.RawMessage
	if trimmed := bytes.TrimSpace(raw); len(trimmed) > 0 && trimmed[0] == '{' {
		var object struct {
			VMs *[]json.RawMessage `json:"vms"`
		}
		if err = json.Unmarshal(raw, &object); err == nil && object.VMs == nil {
			err = errors.New(`has no "vms"`)
		} else if err == nil {
			entries = *object.VMs
		}
	} else if len(trimmed) > 0 {
		err = json.Unmarshal(raw, &entries)
	}
	if err != nil {
		return nil, "", fmt.Errorf("the answer of list_vms is no list of VMs: %w", err)
	}

	vms = make([]record.VM, 0, min(len(entries), record.MaxVMs))
	broken := 0
	for _, e := range entries {
		var v struct {
			SID    string  `json:"sid"`
			Name   string  `json:"name"`
			State  string  `json:"state"`
			CPU    float64 `json:"cpu"`
			Memory float64 `json:"memory"`
			IP     string  `json:"ip"`
		}
		if json.Unmarshal(e, &v) != nil || v.SID == "" || clip(v.SID) != v.SID {
			broken++
			continue
		}
		vms = append(vms, record.VM{
			SID: v.SID, Name: clip(v.Name), State: clip(v.State),
			CPU: count(v.CPU), Memory: count(v.Memory), IP: clip(v.IP),
		})
	}
	slices.SortStableFunc(vms, func(a, b record.VM) int { return cmp.Compare(a.SID, b.SID) })
	unique := slices.CompactFunc(vms, func(a, b record.VM) bool { return a.SID == b.SID })
	broken += len(vms) - len(unique)
	vms = unique
	if broken > 0 {
		odd = fmt.Sprintf("%d without a proper sid of their own", broken)
	}
	if fit := record.FittingVMs(vms); fit < len(vms) {
		if odd != "" {
			odd += "; "
		}
		odd += fmt.Sprintf("%d beyond the %d, or the %d bytes, that a node may have", len(vms)-fit, record.MaxVMs, record.MaxVMBytes)
		vms = vms[:fit]
	}
	return vms, odd, nil
}

// count makes a whole number of what a service calls one.
func count(f float64) uint64 {
	if !(f > 0) { // also NaN
		return 0
	}
	return uint64(min(math.Ceil(f), 1<<62))
}
