package workeragent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// caller is a JSON-RPC connection to one service. Call blocks until the answer
// is there or ctx ends; an error that the service answered is a *jsonrpc.Error.
// It is used by one goroutine at a time.
type caller interface {
	Call(ctx context.Context, method string, params, result any) error
	Close()
}

const (
	methodRegister = "ExplorerService.register_node"
	methodBeat     = "ExplorerService.node_heartbeat"
	methodMasters  = "ExplorerService.masters"

	// Bounds on what an explorer may ask for.
	minInterval = 10 * time.Millisecond
	maxInterval = time.Hour

	minTimeout = 500 * time.Millisecond
	maxTimeout = 5 * time.Second

	// lookAgain is how often a link that stands by asks whether its address still
	// leads to the master that another link beats to.
	lookAgain = time.Minute
)

// refusals is the back-off where trying again helps only after somebody has
// done something.
var refusals = backoff{floor: 10 * time.Second, base: 30 * time.Second, most: 5 * time.Minute}

// answer is what the agent reads of an explorer's answer.
type answer struct {
	Accepted      bool            `json:"accepted"`
	IntervalS     float64         `json:"heartbeat_interval_s"`
	OfflineAfterS float64         `json:"offline_after_s"`
	Register      bool            `json:"register"`
	Masters       json.RawMessage `json:"masters"` // see decodeMembers
}

// link keeps one explorer informed. Its fields belong to the goroutine in run, but for
// those that the membership guards.
type link struct {
	node  *node
	dir   *membership
	call  caller
	route *route        // what call is, for a learned link; nil: a configured one
	first time.Duration // to wait before the first call
	local bool          // a configured address is on this machine
	wake  chan struct{} // holds a token when it may be its turn to beat
	again chan struct{} // holds a token when what was refused may succeed now
	log   *slog.Logger

	status ExplorerStatus     // changed by this goroutine only, under the membership's lock
	stop   context.CancelFunc // ends the goroutine; the membership's lock guards it

	interval   time.Duration
	offline    time.Duration // after which the explorer counts the node as silent; 0: not published
	registered uint64        // seq of the account that the explorer has accepted; 0: none
	confirmed  bool          // a heartbeat went well since
	spoke      uint64        // the boot that the last call was about
	last       string        // what the log said last
}

func newLink(n *node, d *membership, address string, call caller, interval time.Duration, log *slog.Logger) *link {
	return &link{node: n, dir: d, call: call, wake: make(chan struct{}, 1), again: make(chan struct{}, 1),
		interval: interval, log: log.With("explorer", address),
		status: ExplorerStatus{Address: address, State: StateConnecting, Since: time.Now(), IntervalS: interval.Seconds()}}
}

// run registers and beats until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.call.Close()
	changed := l.node.subscribe()
	defer l.node.unsubscribe(changed)
	pause(ctx, l.first)
	for ctx.Err() == nil {
		if !l.dir.active(l) {
			l.standBy(ctx)
			continue
		}
		select {
		case <-changed: // step looks at the account of the moment
		default:
		}
		if wait, wakeable := l.step(ctx); wakeable {
			pause(ctx, wait, changed, l.again)
		} else {
			pause(ctx, wait, l.again)
		}
	}
}

// pause waits for d, for one of at most two wake-ups, or for the end of ctx.
func pause(ctx context.Context, d time.Duration, wake ...<-chan struct{}) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	var sources [2]<-chan struct{} // nil: never
	copy(sources[:], wake)
	select {
	case <-t.C:
	case <-sources[0]:
	case <-sources[1]:
	case <-ctx.Done():
	}
}

// standBy waits while another link beats to the same master, and looks now and
// then whether that still is the same.
func (l *link) standBy(ctx context.Context) {
	l.logState(slog.LevelInfo, StateStandby, "another address leads to the same master, standing by")
	l.dir.note(l, func(s *ExplorerStatus) { s.enter(StateStandby) })
	wait := jittered(lookAgain)
	began := time.Now()
	pause(ctx, wait, l.wake)
	if ctx.Err() != nil || l.route != nil || time.Since(began) < wait {
		return // a learned address is asked who it is before it is used
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout())
	defer cancel()
	if id, err := whoIs(ctx, l.call); err == nil {
		l.dir.leadsTo(l, id)
	}
}

// step does the next thing, and says how long to wait then, and whether a
// changed account should end the wait.
func (l *link) step(ctx context.Context) (wait time.Duration, wakeable bool) {
	if account := l.node.account.Load(); account.Seq != l.registered {
		return l.register(ctx, account)
	}
	return l.beat(ctx)
}

func (l *link) register(ctx context.Context, account *record.Report) (time.Duration, bool) {
	l.spoke = account.Boot
	a, err := l.ask(ctx, methodRegister, l.node.report(account))
	if err != nil {
		return l.failed(ctx, err)
	}
	if !a.Accepted {
		if l.node.account.Load() != account {
			return 0, false // overtaken by our own newer one, by way of another explorer
		}
		return l.retry(StateSuperseded, "explorer knows a later account of this node", errSuperseded), true
	}
	l.registered, l.confirmed = account.Seq, false
	l.log.Debug("account accepted", "boot", account.Boot, "seq", account.Seq, "vms", len(account.VMs))
	l.dir.note(l, func(s *ExplorerStatus) { s.Accepted = account.Seq })
	return 0, false // the first heartbeat follows at once
}

func (l *link) beat(ctx context.Context) (time.Duration, bool) {
	began, b := time.Now(), l.node.beat()
	l.spoke = b.Boot
	a, err := l.ask(ctx, methodBeat, b)
	if err != nil {
		return l.failed(ctx, err)
	}
	if a.Register {
		return l.reregister(), false
	}
	wait := jittered(l.interval)
	if l.status.Failures > 0 || l.status.LastBeat == nil && l.first > 0 {
		// Those who waited for this master came sooner than evenly over an
		// interval. From here on they beat evenly.
		wait = rand.N(l.interval)
	}
	l.confirmed = true
	l.logState(slog.LevelInfo, StateRegistered, "registered", "interval", l.interval)
	l.dir.note(l, func(s *ExplorerStatus) {
		s.enter(StateRegistered)
		s.LastBeat, s.Failures, s.IntervalS = &began, 0, l.interval.Seconds()
	})
	// max: a slow explorer is not asked again at once.
	return max(wait-time.Since(began), l.interval/10), true
}

// ask calls the explorer, for well below a heartbeat interval, and takes what it asks for
// and what it says of the masters. The call goes over the tunnel to it where there is one
// and it takes calls there, and after a failure the other way.
func (l *link) ask(ctx context.Context, method string, params any) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout())
	defer cancel()
	err = errNoCalls
	if framed := l.dir.edges.framed(l.status.Master); framed != nil && l.status.Failures%2 == 0 {
		err = framed.Call(ctx, method, params, &a)
	}
	if errors.Is(err, errNoCalls) {
		err = l.call.Call(ctx, method, params, &a)
	}
	if err == nil {
		err = l.heed(a)
	}
	return a, err
}

func (l *link) timeout() time.Duration { return min(max(l.interval/2, minTimeout), maxTimeout) }

// heed takes what an answer says. It returns an error when this is another explorer than
// it should be.
func (l *link) heed(a answer) error {
	l.interval = max(seconds(a.IntervalS, l.interval), minInterval)
	l.offline = seconds(a.OfflineAfterS, l.offline)
	infos := decodeMembers(a.Masters)
	local := l.local
	if l.route != nil {
		local = l.route.local()
		if addr := l.route.address(); addr != "" && addr != l.status.Address {
			l.dir.note(l, func(s *ExplorerStatus) { s.Address = addr })
		}
	}
	for _, w := range infos {
		if w.Status == statusSelf && !l.dir.leadsTo(l, w.ID) {
			return l.route.wrongMaster(w.ID)
		}
	}
	l.dir.learn(infos, local)
	return nil
}

// seconds is what an explorer says in seconds, at most an hour; otherwise where it
// says nothing.
func seconds(s float64, otherwise time.Duration) time.Duration {
	if !(s > 0) { // also refuses NaN
		return otherwise
	}
	return time.Duration(min(s, maxInterval.Seconds()) * float64(time.Second))
}

// What is wrong where the explorer answers no error.
var (
	errForgetful  = errors.New("accepted the account, then asked for it again")
	errSuperseded = errors.New("the explorer knows a later account of this node: another agent reports with this node's key, " +
		"or the clock was set back; stop the other agent, or restart this one when the clock is right")
)

// failed records a call that failed. It returns how long to wait, as step does.
func (l *link) failed(ctx context.Context, err error) (wait time.Duration, wakeable bool) {
	if ctx.Err() != nil {
		return 0, false // we are leaving; this says nothing of the explorer
	}
	var rpc *jsonrpc.Error
	if !errors.As(err, &rpc) {
		return l.unreachable(err), false
	}
	var detail struct {
		Hint        string  `json:"hint"`
		Reason      string  `json:"reason"`
		RetryAfterS float64 `json:"retry_after_s"`
	}
	_ = rpc.DecodeData(&detail) // an explorer may say anything there
	hint := ""
	switch rpc.Code {
	case jsonrpc.CodeNodeNotFound:
		return l.reregister(), false
	case jsonrpc.CodeRefusedIdentity:
		// Registering tells more than a heartbeat why.
		l.registered = 0
		if detail.Reason == record.RefusedExpired {
			// Nobody meant to: the node comes back as one that has started anew.
			l.node.reboot(l.spoke)
			return l.retry(StateUnreachable, "this node was silent for so long that it was removed, registering anew", err), false
		}
		hint = detail.Hint
	case jsonrpc.CodeUnauthorized:
		hint = "give the agent a token of this grid with --token-file"
	case jsonrpc.CodeInvalidParams:
		hint = "the explorer cannot take what this agent says"
	case jsonrpc.CodeMethodNotFound:
		hint = "this is no explorer, or one of another version"
	case jsonrpc.CodeLimit:
		after := time.Duration(min(max(detail.RetryAfterS, 0), refusals.most.Seconds()) * float64(time.Second))
		return max(l.unreachable(err), jittered(after)), false
	default:
		return l.unreachable(err), false
	}
	if hint != "" && !strings.Contains(err.Error(), hint) {
		err = fmt.Errorf("%w: %s", err, hint)
	}
	return l.retry(StateRefused, "explorer refuses this node", err), rpc.Code == jsonrpc.CodeInvalidParams
}

// reregister is for an explorer that does not know the node. One that says so
// right after it has accepted the account is not taken at its word.
func (l *link) reregister() time.Duration {
	again := l.registered == 0 || !l.confirmed
	l.registered = 0
	if !again {
		return 0
	}
	return l.retry(StateUnreachable, "explorer forgets this node as soon as it has accepted it", errForgetful)
}

func (l *link) unreachable(err error) time.Duration {
	return l.retry(StateUnreachable, "explorer unreachable", err)
}

// retry counts a failure, and returns how long to wait before the next attempt: long
// where somebody has to do something first.
func (l *link) retry(state, message string, err error) time.Duration {
	level, pauses := slog.LevelError, refusals
	if state == StateUnreachable {
		level, pauses = slog.LevelWarn, l.retries()
	}
	l.logState(level, state, message, "error", err)
	l.dir.note(l, func(s *ExplorerStatus) {
		s.enter(state)
		s.Failures++
		s.LastError = err.Error()
	})
	return pauses.delay(l.status.Failures)
}

// retries is the back-off for what heals by itself. All its ceilings are shares
// of the interval: nodes notice that a master is gone when they next beat, so
// evenly over one interval, and each then tries about three times in the first
// interval and twice in those that follow. So a master that returns meets a few
// times the calls that it is used to, spread over an interval, however many nodes
// waited for it and however long. Within that, no wait reaches beyond the moment
// from which the master counts the node as silent.
func (l *link) retries() backoff {
	most := l.interval
	offline := l.offline
	if offline == 0 {
		offline = 3 * l.interval
	}
	if good := l.status.LastBeat; good != nil && time.Since(*good) < offline {
		most = min(most, max(offline-time.Since(*good), l.interval/4))
	}
	return backoff{
		floor: 50 * time.Millisecond,
		base:  max(l.interval/4, 500*time.Millisecond),
		most:  max(most, 2*time.Second),
	}
}

// logState logs a change of state, and is silent while it lasts.
func (l *link) logState(level slog.Level, state, message string, args ...any) {
	if l.last == message {
		return
	}
	l.last = message
	l.log.Log(context.Background(), level, message, append(args, "state", state)...)
}
