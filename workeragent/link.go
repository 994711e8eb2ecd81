package workeragent

import (
	"context"
	"encoding/json"
	"errors"
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
)

// refusals is the back-off where trying again helps only after somebody has
// done something.
var refusals = backoff{floor: 10 * time.Second, base: 30 * time.Second, most: 5 * time.Minute}

// lookAgain is how often a link that stands by asks whether its address still
// leads to the master that another link beats to.
const lookAgain = time.Minute

// answer is what the agent reads of an explorer's answer.
type answer struct {
	Accepted      bool            `json:"accepted"`
	IntervalS     float64         `json:"heartbeat_interval_s"`
	OfflineAfterS float64         `json:"offline_after_s"`
	Register      bool            `json:"register"`
	Masters       json.RawMessage `json:"masters"` // see readWords
}

// link keeps one explorer informed. Its fields belong to the goroutine in run,
// but for state, which others read, and slot, which belongs to the membership.
type link struct {
	node    *node
	dir     *membership
	call    caller
	route   *route        // what call is, for a learned link; nil: a configured one
	first   time.Duration // to wait before the first call
	local   bool          // a configured address is on this machine
	changed <-chan struct{}
	wake    chan struct{} // holds a token when it may be its turn to beat
	again   chan struct{} // holds a token when what was refused may succeed now
	log     *slog.Logger
	state   linkState
	slot    slot

	interval   time.Duration
	offline    time.Duration // after which the explorer counts the node as silent; 0: not told
	good       time.Time     // the last beat that went well; zero: none did
	registered uint64        // seq of the account that the explorer has accepted; 0: none
	confirmed  bool          // a heartbeat went well since
	spoke      uint64        // the boot that the last call was about
	failures   int           // in a row
	last       string        // what the log said last
}

func newLink(n *node, d *membership, address string, call caller, interval time.Duration, log *slog.Logger) *link {
	l := &link{node: n, dir: d, call: call, changed: n.subscribe(), wake: make(chan struct{}, 1), again: make(chan struct{}, 1),
		interval: interval, log: log.With("explorer", address)}
	l.state.init(address, interval)
	return l
}

// run registers and beats until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.call.Close()
	defer l.node.unsubscribe(l.changed)
	pause(ctx, l.first)
	for ctx.Err() == nil {
		if !l.dir.active(l) {
			l.standBy(ctx)
			continue
		}
		wait, wakeable := l.step(ctx)
		var changed <-chan struct{}
		if wakeable {
			changed = l.changed
		}
		pause(ctx, wait, changed, l.again)
	}
}

// pause waits for d, for one of at most two wake-ups, or for the end of ctx.
func pause(ctx context.Context, d time.Duration, wake ...<-chan struct{}) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	var one, other <-chan struct{} // nil: never
	if len(wake) > 0 {
		one = wake[0]
	}
	if len(wake) > 1 {
		other = wake[1]
	}
	select {
	case <-t.C:
	case <-one:
	case <-other:
	case <-ctx.Done():
	}
}

// standBy waits while another link beats to the same master, and looks now and
// then whether that still is the same.
func (l *link) standBy(ctx context.Context) {
	l.logState(slog.LevelInfo, StateStandby, "another address leads to the same master, standing by")
	l.state.standby()
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
	select {
	case <-l.changed:
	default:
	}
	if account := l.node.account.Load(); account.Seq != l.registered {
		return l.register(ctx, account)
	}
	return l.beat(ctx)
}

func (l *link) register(ctx context.Context, account *record.Report) (time.Duration, bool) {
	var a answer
	l.spoke = account.Boot
	if err := l.ask(ctx, methodRegister, l.node.report(account), &a); err != nil {
		return l.failed(ctx, err)
	}
	if err := l.heed(a); err != nil {
		return l.unreachable(err)
	}
	if !a.Accepted {
		if l.node.account.Load() != account {
			return 0, false // overtaken by our own newer one, by way of another explorer
		}
		return l.superseded()
	}
	l.registered, l.confirmed = account.Seq, false
	l.log.Debug("account accepted", "boot", account.Boot, "seq", account.Seq, "vms", len(account.VMs))
	l.state.accepted(account.Seq)
	return 0, false // the first heartbeat follows at once
}

func (l *link) beat(ctx context.Context) (time.Duration, bool) {
	var a answer
	began, b := time.Now(), l.node.beat()
	l.spoke = b.Boot
	if err := l.ask(ctx, methodBeat, b, &a); err != nil {
		return l.failed(ctx, err)
	}
	if err := l.heed(a); err != nil {
		return l.unreachable(err)
	}
	if a.Register {
		return l.reregister()
	}
	wait := jittered(l.interval)
	if l.failures > 0 || l.good.IsZero() && l.first > 0 {
		// Those who waited for this master came sooner than evenly over an
		// interval. From here on they beat evenly.
		wait = rand.N(l.interval)
	}
	l.failures, l.confirmed, l.good = 0, true, began
	l.dir.noteOutcome(l, true)
	l.logState(slog.LevelInfo, StateRegistered, "registered", "interval", l.interval)
	l.state.beaten(l.interval)
	// max: a slow explorer is not asked again at once.
	return max(wait-time.Since(began), l.interval/10), true
}

// reregister is for an explorer that does not know the node. One that says so
// right after it has accepted the account is not taken at its word.
func (l *link) reregister() (time.Duration, bool) {
	again := l.registered == 0 || !l.confirmed
	l.registered = 0
	if !again {
		return 0, false
	}
	l.logState(slog.LevelWarn, StateUnreachable, "explorer forgets this node as soon as it has accepted it")
	l.fails(StateUnreachable, "accepted the account, then asked for it again")
	return l.retries().delay(l.failures), false
}

// superseded is for an explorer that knows a later account of this node.
func (l *link) superseded() (time.Duration, bool) {
	const hint = "another agent reports with this node's key, or the clock was set back; " +
		"stop the other agent, or restart this one when the clock is right"
	l.logState(slog.LevelError, StateSuperseded, "explorer knows a later account of this node", "hint", hint)
	l.fails(StateSuperseded, "the explorer knows a later account of this node: "+hint)
	return refusals.delay(l.failures), true
}

// failed records a call that failed and chooses when to try again.
func (l *link) failed(ctx context.Context, err error) (time.Duration, bool) {
	if ctx.Err() != nil {
		return 0, false // we are leaving; this says nothing of the explorer
	}
	var rpc *jsonrpc.Error
	if !errors.As(err, &rpc) {
		return l.unreachable(err)
	}
	if rpc.Code == jsonrpc.CodeNodeNotFound {
		return l.reregister()
	}
	detail := detailOf(rpc)
	switch rpc.Code {
	case jsonrpc.CodeRefusedIdentity:
		// Registering tells more than a heartbeat why.
		l.registered = 0
		if detail.Reason == record.RefusedExpired {
			return l.expired(err)
		}
		return l.refused(err, detail.Hint, false)
	case jsonrpc.CodeUnauthorized:
		return l.refused(err, "give the agent a token of this grid with --token-file", false)
	case jsonrpc.CodeInvalidParams:
		return l.refused(err, "the explorer cannot take what this agent says", true)
	case jsonrpc.CodeMethodNotFound:
		return l.refused(err, "this is no explorer, or one of another version", false)
	case jsonrpc.CodeLimit:
		wait, again := l.unreachable(err)
		after := time.Duration(min(max(detail.RetryAfterS, 0), refusals.most.Seconds()) * float64(time.Second))
		return max(wait, jittered(after)), again
	}
	return l.unreachable(err)
}

func (l *link) unreachable(err error) (time.Duration, bool) {
	l.logState(slog.LevelWarn, StateUnreachable, "explorer unreachable", "error", err)
	l.fails(StateUnreachable, err.Error())
	return l.retries().delay(l.failures), false
}

func (l *link) refused(err error, hint string, wakeable bool) (time.Duration, bool) {
	text := err.Error()
	if hint != "" && !strings.Contains(text, hint) {
		text += ": " + hint
	}
	l.logState(slog.LevelError, StateRefused, "explorer refuses this node", "error", text)
	l.fails(StateRefused, text)
	return refusals.delay(l.failures), wakeable
}

// expired is for a grid that has removed this node because it was silent for too
// long. Nobody meant to: the node comes back as one that has started anew.
func (l *link) expired(err error) (time.Duration, bool) {
	l.node.reboot(l.spoke)
	l.logState(slog.LevelWarn, StateUnreachable, "this node was silent for so long that it was removed, registering anew", "error", err)
	l.fails(StateUnreachable, err.Error())
	return l.retries().delay(l.failures), false
}

// fails counts a failure.
func (l *link) fails(state, problem string) {
	l.failures++
	l.state.failed(state, l.failures, problem)
	l.dir.noteOutcome(l, false)
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
	if left := l.offlineAfter() - time.Since(l.good); !l.good.IsZero() && left > 0 {
		most = min(most, max(left, l.interval/4))
	}
	return backoff{
		floor: 50 * time.Millisecond,
		base:  max(l.interval/4, 500*time.Millisecond),
		most:  max(most, 2*time.Second),
	}
}

func (l *link) offlineAfter() time.Duration {
	if l.offline > 0 {
		return l.offline
	}
	return 3 * l.interval
}

// ask calls the explorer, for well below a heartbeat interval: over the tunnel to
// it where there is one and it takes calls there, and after a failure the other way.
func (l *link) ask(ctx context.Context, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout())
	defer cancel()
	if l.failures%2 == 0 {
		if framed := l.dir.framed(l); framed != nil {
			if err := framed.Call(ctx, method, params, result); !errors.Is(err, errNoCalls) {
				return err
			}
		}
	}
	return l.call.Call(ctx, method, params, result)
}

func (l *link) timeout() time.Duration { return min(max(l.interval/2, minTimeout), maxTimeout) }

// heed takes what an explorer asks for and what it says of the masters. It
// returns an error when this is another explorer than it should be.
func (l *link) heed(a answer) error {
	l.interval = max(seconds(a.IntervalS, l.interval), minInterval)
	l.offline = seconds(a.OfflineAfterS, l.offline)
	infos := decodeMembers(a.Masters)
	local := l.local
	if l.route != nil {
		local = l.route.local()
		if addr := l.route.address(); addr != "" {
			l.state.at(addr)
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

// logState logs a change of state, and is silent while it lasts.
func (l *link) logState(level slog.Level, state, message string, args ...any) {
	if l.last == message {
		return
	}
	l.last = message
	l.log.Log(context.Background(), level, message, append(args, "state", state)...)
}

// errorDetail is what the agent reads of an error's data.
type errorDetail struct {
	Hint        string  `json:"hint"`
	Reason      string  `json:"reason"`
	RetryAfterS float64 `json:"retry_after_s"`
}

func detailOf(e *jsonrpc.Error) (d errorDetail) {
	_ = e.DecodeData(&d) // an explorer may say anything there
	return d
}
