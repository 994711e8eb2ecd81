package ops

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// histories plays a random history: operations, many at once, with every outcome,
// on a disk that fails; processes that die at any step; machines that lose power.
// It holds the Memory against what the promise says about each id.
type histories struct {
	t    *rapid.T
	ctx  context.Context
	disk *memDisk
	m    *Journal
	opts Options

	known  map[string]*truth
	flying []*flying
	dead   bool // the process died, and what it says no longer counts
}

// truth is what really happened to an id.
type truth struct {
	ran     bool      // it reached the compute service
	ended   time.Time // when; zero: it has not
	runs    int
	answer  string
	given   bool // the answer was
	unknown bool // a caller was told that it is
}

type outcome int

const (
	succeeds outcome = iota
	large
	lost
	refused
)

// flying is an operation that runs until it is told how to end.
type flying struct {
	id   string
	end  chan outcome
	gone chan struct{} // closed when the caller has its answer
}

func TestHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// A bubble of its own for each: rapid goes by the time, and would stop after a day
		// of the clock of one that holds them all.
		inBubble(t, rt, func(t *testing.T) {
			h := &histories{
				t: rt, ctx: t.Context(), disk: newMemDisk(), known: map[string]*truth{},
				opts: Options{Age: time.Hour, MinAge: 10 * time.Minute, MaxOps: 5, MaxAnswer: 30, RunLimit: 100 * time.Hour},
			}
			h.open()
			defer h.stop()
			rt.Repeat(map[string]func(*rapid.T){
				"do":       func(*rapid.T) { h.do(h.id(), h.outcome()) },
				"do again": func(*rapid.T) { h.do(h.id(), succeeds) },
				"begin":    func(*rapid.T) { h.begin(h.id()) },
				"end":      func(*rapid.T) { h.end(h.outcome()) },
				"other":    func(*rapid.T) { h.other(h.id()) },
				"wait":     func(*rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 900).Draw(rt, "seconds")) * time.Second) },
				"fail":     func(*rapid.T) { h.fail(rapid.IntRange(1, 6).Draw(rt, "steps")) },
				"well": func(*rapid.T) {
					h.fail(0)
					time.Sleep(probeEvery)
				},
				"restart": func(*rapid.T) { h.restart(0) },
				"die":     func(*rapid.T) { h.die(rapid.IntRange(1, 12).Draw(rt, "step")) },
			})
		})
	})
}

// inBubble is synctest.Test for what rapid checks. What rapid throws when it has no more
// to draw goes on out of the bubble; anything else is a failure. Rapid tells the two apart
// by the place.
func inBubble(t *testing.T, rt *rapid.T, f func(*testing.T)) {
	var thrown any
	synctest.Test(t, func(t *testing.T) {
		defer func() { thrown = recover() }()
		f(t)
	})
	switch {
	case thrown == nil:
	case fmt.Sprintf("%T", thrown) == "rapid.invalidData":
		panic(thrown)
	default:
		rt.Fatalf("%v", thrown)
	}
}

func (h *histories) id() string { return fmt.Sprint(rapid.IntRange(1, 8).Draw(h.t, "id")) }

func (h *histories) outcome() outcome { return outcome(rapid.IntRange(0, 3).Draw(h.t, "outcome")) }

func (h *histories) open() {
	var err error
	if h.m, err = open(h.disk, path, h.opts); err != nil {
		h.t.Fatal(err)
	}
	if h.m.trustAt != 0 {
		h.t.Fatal("a crash was taken for damage")
	}
	h.dead = false
}

// run is what the compute service does.
func (h *histories) run(id string, end <-chan outcome) Run {
	return func(context.Context) ([]byte, error) {
		how := <-end
		if how == refused {
			return nil, NotRun(errRefused)
		}
		tr := h.known[id]
		if tr.ran && time.Since(tr.ended) < h.opts.MinAge {
			h.t.Errorf("%s ran twice within %v", id, time.Since(tr.ended))
		}
		*tr = truth{ran: true, runs: tr.runs + 1, ended: time.Now()}
		if how == lost {
			return nil, errRefused
		}
		tr.answer = fmt.Sprintf("%s: %d", id, tr.runs)
		if how == large {
			tr.answer += " and much, much, much, much more"
		}
		return []byte(tr.answer), nil
	}
}

// do asks for an operation and holds the answer against the truth.
func (h *histories) do(id string, how outcome) {
	if h.known[id] == nil {
		h.known[id] = new(truth)
	}
	if h.running(id) {
		return
	}
	end := make(chan outcome, 1)
	end <- how
	h.check(id, func() ([]byte, error) { return h.m.Do(h.ctx, id, [32]byte{}, h.run(id, end)) })
}

func (h *histories) check(id string, do func() ([]byte, error)) {
	was, began, failures, wasWell := *h.known[id], time.Now(), h.failures(), h.well()
	answer, err := do()
	if h.dead || h.disk.dead {
		return // nobody is there to hear it
	}
	is := h.known[id]
	young := was.ran && began.Sub(was.ended) < h.opts.MinAge
	ran := is.runs > was.runs
	well := wasWell && h.failures() == failures
	switch {
	case err == nil:
		if string(answer) != is.answer || !is.ran {
			h.t.Errorf("%s was answered %q; it ran %d times, the answer was %q", id, answer, is.runs, is.answer)
		}
		if !ran && was.unknown && young {
			h.t.Errorf("%s was unknown, and then answered", id)
		}
		is.given = true
	case errors.Is(err, ErrUnknown):
		if is.given && young {
			h.t.Errorf("%s was answered, and then unknown: %v", id, err)
		}
		is.unknown = true
	case errors.Is(err, ErrTooLarge):
		if len(is.answer) <= h.opts.MaxAnswer {
			h.t.Errorf("%s: %v, but it is %q", id, err, is.answer)
		}
		is.given = false
	case errors.Is(err, ErrUnsaved):
		if !is.ran || well {
			h.t.Errorf("%s: %v; ran %v, disk well %v", id, err, is.ran, well)
		}
	case errors.Is(err, ErrDisk):
		if ran || young || well {
			h.t.Errorf("%s: %v; ran %v, disk well %v", id, err, ran || young, well)
		}
	case errors.Is(err, ErrFull):
		if ran || young || len(h.m.ops) < h.opts.MaxOps {
			h.t.Errorf("%s: %v; ran %v, %d remembered", id, err, ran || young, len(h.m.ops))
		}
	case errors.Is(err, errRefused):
		if ran || young {
			h.t.Errorf("%s: %v, although it ran", id, err)
		}
	default:
		h.t.Errorf("%s: %v", id, err)
	}
	if len(is.answer) > h.opts.MaxAnswer {
		is.given = false // repeats do not get it
	}
}

func (h *histories) failures() int {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return h.disk.failures
}

// well tells whether the disk is, and the Memory knows it.
func (h *histories) well() bool {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return h.disk.failing == 0 && h.m.journal.failed == nil
}

func (h *histories) running(id string) bool {
	for _, f := range h.flying {
		if f.id == id {
			return true
		}
	}
	return false
}

// begin begins an operation that does not end yet, with two callers.
func (h *histories) begin(id string) {
	if h.known[id] == nil {
		h.known[id] = new(truth)
	}
	if h.running(id) {
		return
	}
	f := &flying{id, make(chan outcome, 1), make(chan struct{})}
	go func() {
		defer close(f.gone)
		h.check(id, func() ([]byte, error) { return h.m.Do(h.ctx, id, [32]byte{}, h.run(id, f.end)) })
	}()
	h.flying = append(h.flying, f)
	synctest.Wait()
	h.land()
}

// land forgets operations that have ended.
func (h *histories) land() {
	kept := h.flying[:0]
	for _, f := range h.flying {
		select {
		case <-f.gone:
		default:
			kept = append(kept, f)
		}
	}
	h.flying = kept
}

func (h *histories) end(how outcome) {
	if len(h.flying) == 0 {
		return
	}
	h.flying[0].end <- how
	<-h.flying[0].gone
	h.land()
}

// other asks for something else under an id.
func (h *histories) other(id string) {
	tr := h.known[id]
	if tr == nil || h.dead {
		return
	}
	young := tr.ran && time.Since(tr.ended) < h.opts.MinAge
	_, err := h.m.Do(h.ctx, id, [32]byte{1}, func(context.Context) ([]byte, error) {
		if young || h.running(id) {
			h.t.Errorf("%s ran as something else", id)
		}
		return nil, NotRun(errRefused)
	})
	if (young || h.running(id)) && !errors.Is(err, ErrOtherCall) {
		h.t.Errorf("%s as something else: %v", id, err)
	}
}

func (h *histories) fail(steps int) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	h.disk.failing = steps
}

// stop ends what runs, and the process.
func (h *histories) stop() {
	for len(h.flying) > 0 {
		h.end(outcome(len(h.flying) % 4))
	}
	if err := h.m.Close(h.ctx); err != nil {
		h.t.Error(err)
	}
}

// restart is a restart, after a power cut where there is a seed.
func (h *histories) restart(seed uint64) {
	h.stop()
	if seed != 0 {
		h.disk.powerCut(rand.New(rand.NewPCG(seed, 0)))
	} else {
		h.disk.restart()
	}
	h.open()
}

// die lets the process die at a step of the disk, while operations go on.
func (h *histories) die(step int) {
	h.disk.mu.Lock()
	h.disk.dieAt = h.disk.steps + step
	h.disk.mu.Unlock()
	for !h.disk.dead && step > 0 {
		if rapid.Bool().Draw(h.t, "end one") {
			h.end(h.outcome())
		} else {
			h.do(h.id(), h.outcome())
		}
		step--
	}
	h.dead = true
	h.restart(rapid.Uint64().Draw(h.t, "power cut"))
}
