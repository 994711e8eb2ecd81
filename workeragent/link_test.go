package workeragent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/host"
)

var errRefused = errors.New("connection refused")

func TestRegistersThenBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := explorerThat(t, func(c call) (any, error) {
			return answer{Accepted: true, IntervalS: 4}, nil
		})
		cfg := testConfig(t, "a:1")
		cfg.Labels = map[string]string{"rack": "7"}
		cfg.Location = record.Location{Country: "Belgium", Latitude: -0.5}
		cfg.AdvertiseCompute = "10.0.0.1"
		s := startAgent(t, cfg, map[string]*fakeService{"a:1": x})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		calls := x.take()

		wantMethods(t, calls[:3], "register_node", "node_heartbeat", "node_heartbeat")
		r := calls[0].report
		if r.NodeID != s.agent.Status().KeyID || !strings.HasPrefix(r.NodeID, "12D3KooW") {
			t.Errorf("node id %q", r.NodeID)
		}
		if r.Hostname != "worker" || r.Total != someFigures.Total || r.SlicesTotal != 3 || r.Labels["rack"] != "7" ||
			r.SocketPath != "tcp://10.0.0.1:9003" || r.Location != cfg.Location || r.VMs == nil || r.UptimeS != 1000 {
			t.Errorf("report %+v", r)
		}
		state, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1, RequireSigned: true})
		if err != nil || state.IsZero() {
			t.Errorf("a master that wants signatures says %v", err)
		}

		if d := calls[1].at.Sub(calls[0].at); d != 0 {
			t.Errorf("first heartbeat %v after the registration", d)
		}
		seen := map[time.Duration]bool{}
		for i := 2; i < len(calls); i++ {
			d := calls[i].at.Sub(calls[i-1].at)
			if seen[d] = true; d < 3600*time.Millisecond || d > 4400*time.Millisecond {
				t.Errorf("heartbeat after %v, want 4s give or take a tenth", d)
			}
		}
		if len(seen) < len(calls)/2 {
			t.Errorf("%d different pauses between %d heartbeats: no jitter", len(seen), len(calls))
		}
		last := r.Seq
		for _, c := range calls[1:] {
			if c.method != "node_heartbeat" || c.beat.Seq <= last || c.beat.Boot != r.Boot || c.beat.NodeID != r.NodeID {
				t.Fatalf("after seq %d came %+v", last, c)
			}
			last = c.beat.Seq
			if up := 1000 + uint64(c.at.Sub(calls[0].at).Seconds()); c.beat.UptimeS < 1000 || c.beat.UptimeS > up {
				t.Errorf("uptime %d, at most %d", c.beat.UptimeS, up)
			}
		}
		if n := len(s.log.lines("registered")); n != 1 {
			t.Errorf("%d lines in the log on registering, want 1", n)
		}
		st := s.agent.Status().Explorers[0]
		if st.State != StateRegistered || st.IntervalS != 4 || st.LastBeat == nil || st.Accepted != r.Seq {
			t.Errorf("status %+v", st)
		}
	})
}

func TestExplorersAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, slow := explorerThat(t, nil), explorerThat(t, nil)
		slow.delay = 4900 * time.Millisecond
		dead := explorerThat(t, func(call) (any, error) { return nil, errRefused })
		hung := explorerThat(t, nil)
		hung.hang = true
		cross := explorerThat(t, func(call) (any, error) { return nil, &jsonrpc.Error{Code: jsonrpc.CodeRefusedIdentity} })
		flood := explorerThat(t, func(call) (any, error) { return answer{Accepted: true, IntervalS: 1e-300}, nil })
		odd := explorerThat(t, func(call) (any, error) { return answer{Accepted: true, IntervalS: 1e300}, nil })
		startAgent(t, testConfig(t, "good:1", "slow:1", "dead:1", "hung:1", "cross:1", "flood:1", "odd:1"),
			map[string]*fakeService{"good": good, "slow": slow, "dead": dead, "hung": hung,
				"cross": cross, "flood": flood, "odd": odd})
		time.Sleep(5 * time.Minute)
		synctest.Wait()

		calls := good.take()
		for i := 2; i < len(calls); i++ {
			if d := calls[i].at.Sub(calls[i-1].at); d > 11*time.Second {
				t.Errorf("the good explorer heard nothing for %v", d)
			}
		}
		if n := len(calls); n < 27 {
			t.Errorf("%d calls to the good explorer in 5 minutes", n)
		}
		if n := len(slow.take()); n < 25 {
			t.Errorf("%d calls to the slow explorer in 5 minutes", n)
		}
		for _, c := range hung.take() {
			if c.took > maxTimeout || c.method != "register_node" {
				t.Errorf("%s waited for %v", c.method, c.took)
			}
		}
		if n := len(dead.take()); n < 20 || n > 120 {
			t.Errorf("%d attempts to reach the dead explorer in 5 minutes", n)
		}
		if n := len(cross.take()); n < 2 || n > 25 {
			t.Errorf("%d attempts at the explorer that refuses in 5 minutes", n)
		}
		if n := len(flood.take()); n > 5*60*1000/9 {
			t.Errorf("%d heartbeats to an explorer that wants a flood", n)
		}
		if n := len(odd.take()); n != 2 {
			t.Errorf("%d calls to an explorer that wants none", n)
		}
	})
}

func TestUnreachableIsTriedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := explorerThat(t, func(call) (any, error) { return nil, errRefused })
		s := startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x})
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		calls := x.take()
		var pauses []time.Duration
		for i := 1; i < len(calls); i++ {
			pauses = append(pauses, calls[i].at.Sub(calls[i-1].at))
		}
		if worst := slices.Max(pauses); worst > 10*time.Second || worst < 9*time.Second {
			t.Errorf("longest pause %v, want nearly 10s", worst)
		}
		if least := slices.Min(pauses); least < 50*time.Millisecond {
			t.Errorf("shortest pause %v, want at least 50ms", least)
		}
		if n := len(calls); n < 3*360 || n > 3*3600 {
			t.Errorf("%d attempts in 3 hours", n)
		}
		if n := len(s.log.lines("unreachable")); n != 1 {
			t.Errorf("%d lines in the log, want 1", n)
		}

		x.set(explorerThat(t, nil).on)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		calls = x.take()
		wantMethods(t, calls[:2], "register_node", "node_heartbeat")

		// Once registered, an absence costs heartbeats only.
		x.set(func(call) (any, error) { return nil, errRefused })
		time.Sleep(time.Minute)
		x.set(explorerThat(t, nil).on)
		time.Sleep(time.Minute)
		synctest.Wait()
		if slices.Contains(methods(x.take()), "register_node") {
			t.Error("registered again without need")
		}
		if n, m := len(s.log.lines("unreachable")), len(s.log.lines("msg=registered")); n != 2 || m != 2 {
			t.Errorf("%d and %d lines in the log, want 2 and 2", n, m)
		}
	})
}

func TestNoBeatBeforeAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, on := range map[string]func(call) (any, error){
			"unreachable":  func(call) (any, error) { return nil, errRefused },
			"internal":     func(call) (any, error) { return nil, &jsonrpc.Error{Code: jsonrpc.CodeInternal} },
			"not accepted": func(call) (any, error) { return answer{Accepted: false, IntervalS: 1}, nil },
			"unknown node": func(call) (any, error) { return nil, &jsonrpc.Error{Code: jsonrpc.CodeNodeNotFound} },
			"bad report":   func(call) (any, error) { return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams} },
			"no token":     func(call) (any, error) { return nil, &jsonrpc.Error{Code: jsonrpc.CodeUnauthorized} },
			"no explorer":  func(call) (any, error) { return nil, &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound} },
		} {
			x := explorerThat(t, on)
			s := startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x})
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			calls := x.take()
			if len(calls) < 3 || len(calls) > 600 {
				t.Errorf("%s: %d attempts in 10 minutes", name, len(calls))
			}
			if slices.Contains(methods(calls), "node_heartbeat") {
				t.Errorf("%s: a heartbeat before the registration was accepted", name)
			}
			if n := len(s.log.lines("explorer=")); n != 1 {
				t.Errorf("%s: %d lines in the log, want 1", name, n)
			}
			x.set(explorerThat(t, nil).on)
			time.Sleep(refusals.most + time.Second)
			synctest.Wait()
			wantMethods(t, x.take()[:2], "register_node", "node_heartbeat")
			if err := s.agent.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRegistersAgainWhenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := explorerThat(t, nil)
		startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x})
		time.Sleep(35 * time.Second)
		first := x.take()[0].report

		for name, tell := range map[string]func() (any, error){
			"answer": func() (any, error) { return answer{Accepted: true, IntervalS: 10, Register: true}, nil },
			"error":  func() (any, error) { return nil, &jsonrpc.Error{Code: jsonrpc.CodeNodeNotFound} },
		} {
			told := false
			x.set(func(c call) (any, error) {
				if c.method == "node_heartbeat" && !told {
					told = true
					return tell()
				}
				return answer{Accepted: true, IntervalS: 10}, nil
			})
			time.Sleep(12 * time.Second)
			synctest.Wait()
			calls := x.take()
			wantMethods(t, calls[:3], "node_heartbeat", "register_node", "node_heartbeat")
			if d := calls[2].at.Sub(calls[0].at); d != 0 {
				t.Errorf("%s: registered again after %v, want at once", name, d)
			}
			if r := calls[1].report; r.Seq != first.Seq || r.Boot != first.Boot {
				t.Errorf("%s: nothing has changed, but the account has another version", name)
			}
			time.Sleep(30 * time.Second)
			x.take()
		}
	})
}

func TestForgetfulExplorerIsNotFlooded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := explorerThat(t, func(call) (any, error) {
			return answer{Accepted: true, IntervalS: 10, Register: true}, nil
		})
		startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(x.take()); n < 60 || n > 400 {
			t.Errorf("%d calls in 10 minutes to an explorer that forgets", n)
		}
	})
}

func TestChangeRegistersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := explorerThat(t, nil), explorerThat(t, nil)
		s := startAgent(t, testConfig(t, "a:1", "b:1"), map[string]*fakeService{"a:1": a, "b:1": b})
		n := s.agent.running.Load().node
		time.Sleep(25 * time.Second)
		synctest.Wait()
		first := a.take()[0].report
		b.take()

		n.setVMs([]record.VM{{SID: "vm-1", State: "running", Memory: 5 * gib}})
		changed := time.Now()
		synctest.Wait()
		ca, cb := a.take(), b.take()
		wantMethods(t, ca, "register_node", "node_heartbeat")
		wantMethods(t, cb, "register_node", "node_heartbeat")
		ra, rb := ca[0].report, cb[0].report
		if ca[0].at != changed || len(ra.VMs) != 1 || ra.Usage.Slices != 2 {
			t.Errorf("report %v after the change: %+v", ca[0].at.Sub(changed), ra)
		}
		if ra.Seq <= first.Seq || ra.Seq != rb.Seq || string(ra.Signature) != string(rb.Signature) {
			t.Errorf("seq %d to a and %d to b after %d; want one new account for both", ra.Seq, rb.Seq, first.Seq)
		}

		// Usage is no news; a new address is.
		f := someFigures
		f.Usage.MRU++
		n.setFigures(f)
		synctest.Wait()
		wantMethods(t, a.take())
		f.MyceliumIP = "400::1"
		n.setFigures(f)
		synctest.Wait()
		wantMethods(t, a.take(), "register_node", "node_heartbeat")

		// A change does not cut short the back-off of an explorer that is away.
		a.set(func(call) (any, error) { return nil, errRefused })
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		a.take()
		for i := range uint64(50) {
			n.setVMs([]record.VM{{SID: "vm-1", CPU: i + 1}})
			synctest.Wait()
		}
		if got := len(a.take()); got != 0 {
			t.Errorf("%d calls to an unreachable explorer after 50 changes at one instant", got)
		}
		if got := len(b.take()); got < 50 {
			t.Errorf("%d calls to the other explorer after 50 changes", got)
		}
	})
}

func TestOvertakenByOurselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := explorerThat(t, nil)
		s := startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x}, func(s *setup) {
			s.figures = func(context.Context) (host.Figures, error) {
				time.Sleep(time.Second)
				return someFigures, nil
			}
		})
		n := s.agent.running.Load().node
		x.set(func(c call) (any, error) {
			if c.method == "register_node" && len(c.report.VMs) == 0 {
				// The next account is already there, by way of another explorer.
				n.setVMs([]record.VM{{SID: "vm-1"}})
				return answer{Accepted: false, IntervalS: 10}, nil
			}
			return answer{Accepted: true, IntervalS: 10}, nil
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantMethods(t, x.take(), "register_node", "register_node", "node_heartbeat")
	})
}

func TestRefusalIsLoggedWithItsHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := explorerThat(t, func(call) (any, error) {
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeRefusedIdentity, Message: "refused",
				Data: map[string]any{"hint": "use another node id", "retryable": false}}
		})
		s := startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x})
		time.Sleep(time.Hour)
		synctest.Wait()
		lines := s.log.lines("refuses this node")
		if len(lines) != 1 || !strings.Contains(lines[0], "use another node id") || !strings.Contains(lines[0], "ERROR") {
			t.Errorf("log: %q", lines)
		}
		if n := len(x.take()); n < 12 || n > 60 {
			t.Errorf("%d attempts in an hour", n)
		}
		if e := s.agent.Status().Explorers[0]; e.State != StateRefused || !strings.Contains(e.LastError, "use another") {
			t.Errorf("status %+v", e)
		}
	})
}

func TestLimitIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			after float64
			least time.Duration
		}{{60, 54 * time.Second}, {1e300, 270 * time.Second}, {-1, 0}} {
			x := explorerThat(t, func(call) (any, error) {
				return nil, &jsonrpc.Error{Code: jsonrpc.CodeLimit, Data: map[string]any{"retry_after_s": c.after}}
			})
			s := startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x})
			time.Sleep(30 * time.Minute)
			synctest.Wait()
			calls := x.take()
			if len(calls) < 4 {
				t.Fatalf("retry_after_s %v: %d calls", c.after, len(calls))
			}
			for i := 1; i < len(calls); i++ {
				if d := calls[i].at.Sub(calls[i-1].at); d < c.least {
					t.Errorf("asked to stay away for %v s, came back after %v", c.after, d)
				}
			}
			_ = s.agent.Stop()
		}
	})
}

func TestBackoffBounds(t *testing.T) {
	b := backoff{floor: 50 * time.Millisecond, base: time.Second, most: 10 * time.Second}
	for _, c := range []struct {
		n    int
		most time.Duration
	}{{1, time.Second}, {2, 2 * time.Second}, {4, 8 * time.Second}, {5, 10 * time.Second},
		{64, 10 * time.Second}, {math.MaxInt, 10 * time.Second}} {
		var sum, low, high time.Duration
		low = time.Hour
		for range 10_000 {
			d := b.delay(c.n)
			sum, low, high = sum+d, min(low, d), max(high, d)
		}
		if low < b.floor || high > c.most {
			t.Errorf("after %d failures between %v and %v", c.n, low, high)
		}
		if high < c.most*9/10 || low > c.most/10+b.floor {
			t.Errorf("after %d failures only between %v and %v: no full jitter", c.n, low, high)
		}
		if mean := sum / 10_000; mean < c.most*4/10 || mean > c.most*6/10 {
			t.Errorf("after %d failures %v on average", c.n, mean)
		}
	}
	if d := (backoff{floor: time.Minute, base: 1, most: 2}).delay(9); d != time.Minute {
		t.Errorf("floor above the ceiling gives %v", d)
	}
	if d := refusals.delay(40); d < refusals.floor || d > refusals.most {
		t.Errorf("refusals: %v", d)
	}
}

func bootOf(c call) uint64 { return max(c.report.Boot, c.beat.Boot) }

// A node that the grid has forgotten comes back by itself, with one new boot
// however many explorers tell it.
func TestExpiredNodeComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first atomic.Uint64
		var removed atomic.Bool
		x := func() *fakeService {
			return explorerThat(t, func(c call) (any, error) {
				if boot := bootOf(c); removed.Load() && (first.CompareAndSwap(0, boot) || first.Load() == boot) {
					return nil, &jsonrpc.Error{Code: jsonrpc.CodeRefusedIdentity, Data: map[string]any{"reason": record.RefusedExpired}}
				}
				return answer{Accepted: true, IntervalS: 10}, nil
			})
		}
		var running atomic.Pointer[setup]
		t.Cleanup(func() { writeFile = atomicfile.Write })
		writeFile = func(path string, content []byte) error {
			if s := running.Load(); s != nil {
				s.seam("write of " + path)
			}
			return atomicfile.Write(path, content)
		}
		a, b := x(), x()
		s := startAgent(t, testConfig(t, "a:1", "b:1"), map[string]*fakeService{"a:1": a, "b:1": b})
		running.Store(s)
		time.Sleep(time.Minute)
		removed.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		status := s.agent.Status()
		if status.Boot <= first.Load() {
			t.Errorf("boot %d, it began with %d", status.Boot, first.Load())
		}
		for _, e := range status.Explorers {
			if e.State != StateRegistered {
				t.Errorf("%+v", e)
			}
		}
		boots := map[uint64]bool{}
		for _, c := range append(a.take(), b.take()...) {
			boots[bootOf(c)] = true
		}
		if len(boots) != 2 {
			t.Errorf("it spoke as %d boots", len(boots))
		}
	})
}

// Of two links that are told at one time that the node was removed, one has it start anew.
func TestRebootsOnce(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	n := newNode("n", key, 5, record.Profile{})
	n.open()
	first := true
	n.next = func() uint64 {
		if first {
			first = false
			n.reboot(5) // the other one, while this one waits for the disk
		}
		return 9
	}
	n.reboot(5)
	if r := n.account.Load(); r.Boot != 9 || r.Seq != 2 {
		t.Errorf("boot %d, account %d, want 9 and 2", r.Boot, r.Seq)
	}
}
