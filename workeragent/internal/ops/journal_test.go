package ops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const path = "operations"

var errRefused = errors.New("connection refused")

func mustOpen(t testing.TB, d disk, o Options) *Journal {
	t.Helper()
	m, err := open(d, path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func reopen(t testing.TB, m *Journal, d disk, o Options) *Journal {
	t.Helper()
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, d, o)
}

// counter is a compute service that counts how often it is asked for what.
type counter struct {
	mu   sync.Mutex
	runs map[string]int
}

// run returns an operation of that name.
func (c *counter) run(id string) Run {
	return func(context.Context) ([]byte, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.runs == nil {
			c.runs = map[string]int{}
		}
		c.runs[id]++
		return fmt.Appendf(nil, "answer %d of %s", c.runs[id], id), nil
	}
}

func (c *counter) of(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs[id]
}

func never(t *testing.T) Run {
	return func(context.Context) ([]byte, error) {
		t.Error("run again")
		return nil, nil
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func wantAnswer(t *testing.T, answer []byte, err error, want string) {
	t.Helper()
	if err != nil || string(answer) != want {
		t.Errorf("answer %q, error %v; want %q", answer, err, want)
	}
}

func TestAnswerIsKept(t *testing.T) {
	d := newMemDisk()
	m := mustOpen(t, d, Options{})
	var c counter
	for range 3 {
		for range 3 {
			answer, err := m.Do(t.Context(), "a", [32]byte{1}, c.run("a"))
			wantAnswer(t, answer, err, "answer 1 of a")
			_, err = m.Do(t.Context(), "a", [32]byte{2}, never(t))
			wantError(t, err, ErrOtherCall)
		}
		m = reopen(t, m, d, Options{})
	}
	for _, id := range []string{"", strings.Repeat("x", MaxID+1)} {
		if _, err := m.Do(t.Context(), id, [32]byte{}, never(t)); err == nil {
			t.Errorf("took an id of %d bytes", len(id))
		}
	}
}

func TestFileIsForItsOwnerOnly(t *testing.T) {
	name := filepath.Join(t.TempDir(), "operations")
	m, err := Open(name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Do(t.Context(), "a", [32]byte{}, new(counter).run("a")); err != nil {
		t.Error(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if m, err = Open(name, Options{}); err != nil {
		t.Fatal(err)
	}
	answer, err := m.Do(t.Context(), "a", [32]byte{}, never(t))
	wantAnswer(t, answer, err, "answer 1 of a")
	wantError(t, m.Close(t.Context()), nil)
}

func TestManyAtOnceRunOnce(t *testing.T) {
	m := mustOpen(t, newMemDisk(), Options{})
	var c counter
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			id := fmt.Sprint(i % 20)
			answer, err := m.Do(t.Context(), id, [32]byte{}, c.run(id))
			wantAnswer(t, answer, err, "answer 1 of "+id)
		})
	}
	all.Wait()
}

// What comes in while the disk is busy shares an fsync.
func TestSyncsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, slowDisk{d}, Options{})
		before := d.steps
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { _, _ = m.Do(t.Context(), fmt.Sprint(i), [32]byte{}, new(counter).run("x")) })
		}
		all.Wait()
		if took := d.steps - before; took > 30 {
			t.Errorf("%d steps of the disk for 100 operations at once", took)
		}
	})
}

// slowDisk takes time for an fsync.
type slowDisk struct{ *memDisk }

func (s slowDisk) create(path string) (file, error) {
	f, err := s.memDisk.create(path)
	return slowFile{f}, err
}

type slowFile struct{ file }

func (s slowFile) Sync() error {
	time.Sleep(time.Millisecond)
	return s.file.Sync()
}

// It goes on when its caller goes away, and others get its answer.
func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, d, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error)
		go func() {
			_, err := m.Do(ctx, "a", [32]byte{}, func(ctx context.Context) ([]byte, error) {
				time.Sleep(time.Minute)
				return []byte("done"), ctx.Err()
			})
			first <- err
		}()
		synctest.Wait()
		cancel()
		wantError(t, <-first, context.Canceled)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Do(short, "a", [32]byte{}, never(t))
		wantError(t, err, context.DeadlineExceeded)
		_, err = m.Do(ctx, "never begun", [32]byte{}, never(t))
		wantError(t, err, context.Canceled)
		answer, err := m.Do(t.Context(), "a", [32]byte{}, never(t))
		wantAnswer(t, answer, err, "done")
	})
}

func TestOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		o := Options{RunLimit: time.Minute, MaxAnswer: 10}
		m := mustOpen(t, d, o)

		// Not run: those who wait learn it, and the next one may run it.
		running := make(chan bool)
		results := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := m.Do(t.Context(), "refused", [32]byte{1}, func(context.Context) ([]byte, error) {
					<-running
					return nil, NotRun(errRefused)
				})
				results <- err
			}()
		}
		synctest.Wait()
		close(running)
		for range 2 {
			wantError(t, <-results, errRefused)
		}
		m = reopen(t, m, d, o)
		answer, err := m.Do(t.Context(), "refused", [32]byte{2}, func(context.Context) ([]byte, error) { return []byte("now"), nil })
		wantAnswer(t, answer, err, "now")

		// Unknown: for ever.
		for id, run := range map[string]Run{
			"lost":  func(context.Context) ([]byte, error) { return nil, errRefused },
			"panic": func(context.Context) ([]byte, error) { panic("on purpose") },
			"long":  func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
		} {
			begun := time.Now()
			_, err := m.Do(t.Context(), id, [32]byte{}, run)
			wantError(t, err, ErrUnknown)
			if took := time.Since(begun); id == "long" && took != time.Minute {
				t.Error("an operation could run for", took)
			}
		}
		_, err = m.Do(t.Context(), "large", [32]byte{}, func(context.Context) ([]byte, error) { return []byte("0123456789+"), nil })
		wantError(t, err, nil)
		for range 2 {
			for _, id := range []string{"lost", "panic", "long"} {
				_, err := m.Do(t.Context(), id, [32]byte{}, never(t))
				wantError(t, err, ErrUnknown)
			}
			_, err = m.Do(t.Context(), "large", [32]byte{}, never(t))
			wantError(t, err, ErrTooLarge)
			m = reopen(t, m, d, o)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, d, Options{})
		do := func(id string, run Run) <-chan error {
			c := make(chan error, 1)
			go func() {
				_, err := m.Do(t.Context(), id, [32]byte{}, run)
				c <- err
			}()
			synctest.Wait()
			return c
		}
		short := do("short", func(context.Context) ([]byte, error) { time.Sleep(time.Second); return []byte("done"), nil })
		long := do("long", func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		stuck := do("stuck", func(context.Context) ([]byte, error) { time.Sleep(time.Hour); return []byte("late"), nil })

		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		closed := make(chan error)
		go func() { closed <- m.Close(ctx) }()
		synctest.Wait()
		wantError(t, <-do("new", never(t)), ErrClosed)
		wantError(t, <-short, nil)
		wantError(t, <-long, ErrUnknown)
		if err := <-closed; err == nil {
			t.Error("Close did not say that something hung")
		}
		d.restart()
		next := mustOpen(t, d, Options{})
		answer, err := next.Do(t.Context(), "short", [32]byte{}, never(t))
		wantAnswer(t, answer, err, "done")
		for _, id := range []string{"long", "stuck"} {
			_, err := next.Do(t.Context(), id, [32]byte{}, never(t))
			wantError(t, err, ErrUnknown)
		}
		file, _ := d.read(path)
		wantError(t, <-stuck, ErrUnsaved)
		if now, _ := d.read(path); string(now) != string(file) {
			t.Error("what was closed has written")
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		o := Options{Age: time.Hour, MinAge: time.Minute, MaxOps: 3, MaxBytes: 100}
		m := mustOpen(t, d, o)
		var c counter
		do := func(id string) error {
			_, err := m.Do(t.Context(), id, [32]byte{}, c.run(id))
			return err
		}
		for _, id := range []string{"a", "b", "c"} {
			wantError(t, do(id), nil)
			time.Sleep(10 * time.Second)
		}
		err := do("d")
		wantError(t, err, ErrFull)
		var wait *WaitError
		if !errors.As(err, &wait) || wait.After != 30*time.Second {
			t.Fatalf("error %v, want one that says 30s", err)
		}
		m = reopen(t, m, d, o) // its clock stands still meanwhile
		wantError(t, do("a"), nil)
		time.Sleep(wait.After + 10*time.Second)
		wantError(t, do("d"), nil) // in place of a
		wantError(t, do("c"), nil)
		wantError(t, do("b"), nil)
		if c.of("b") != 1 || c.of("c") != 1 {
			t.Error("young ones were forgotten")
		}
		wantError(t, do("a"), ErrFull)
		time.Sleep(time.Hour)
		wantError(t, do("b"), nil)
		if c.of("b") != 2 || len(m.ops) != 1 {
			t.Errorf("b ran %d times, %d are remembered; all are old", c.of("b"), len(m.ops))
		}

		_, err = m.Do(t.Context(), "long", [32]byte{}, func(context.Context) ([]byte, error) { return make([]byte, 100), nil })
		wantError(t, err, nil)
		wantError(t, do("x"), ErrFull)
	})
}

// Operations that heed their context end with the Memory, and what they say then is
// written down: Close has no complaint.
func TestCloseTellsOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, d, Options{})
		result := make(chan error, 1)
		go func() {
			_, err := m.Do(t.Context(), "a", [32]byte{}, func(ctx context.Context) ([]byte, error) {
				<-ctx.Done()
				return []byte("in time"), nil
			})
			result <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		wantError(t, m.Close(ctx), nil)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v, where one second was given", took)
		}
		wantError(t, <-result, nil)
		answer, err := mustOpen(t, d, Options{}).Do(t.Context(), "a", [32]byte{}, never(t))
		wantAnswer(t, answer, err, "in time")
	})
}

// A disk hangs while the Memory is closed. What waited for it is not written when it goes
// on: by then another process may have the file.
func TestClosedOnAHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := hangingDisk{newMemDisk(), make(chan struct{})}
		close(d.goes)
		m := mustOpen(t, d, Options{})
		d.goes = make(chan struct{})
		m.journal.file.(*hangingFile).goes = d.goes
		results := make(chan error, 2)
		for _, id := range []string{"first", "second"} {
			go func() {
				_, err := m.Do(t.Context(), id, [32]byte{}, never(t))
				results <- err
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m.Close(ctx) == nil {
			t.Error("Close did not say that the disk hangs")
		}
		steps := d.steps
		close(d.goes)
		for range 2 {
			if err := <-results; err == nil {
				t.Error("an operation was carried out after Close")
			}
		}
		if n := d.steps - steps; n > 2 {
			t.Errorf("%d steps of the disk after Close; the sync that hung, and the mark behind it, are 2", n)
		}
	})
}

// hangingDisk hangs in each fsync until it goes.
type hangingDisk struct {
	*memDisk
	goes chan struct{}
}

func (h hangingDisk) create(path string) (file, error) {
	f, err := h.memDisk.create(path)
	return &hangingFile{f, h.goes}, err
}

type hangingFile struct {
	file
	goes chan struct{}
}

func (h *hangingFile) Sync() error {
	<-h.goes
	return h.file.Sync()
}

// The clock on the wall has no say: a file from the future, or from a past that has
// not happened, is as old as the Memory was open.
func TestAgesCountOpenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, d, Options{Age: time.Hour})
		var c counter
		_, err := m.Do(t.Context(), "a", [32]byte{}, c.run("a"))
		wantError(t, err, nil)
		for range 3 {
			wantError(t, m.Close(t.Context()), nil)
			time.Sleep(1000 * time.Hour)
			m = mustOpen(t, d, Options{Age: time.Hour})
			answer, err := m.Do(t.Context(), "a", [32]byte{}, never(t))
			wantAnswer(t, answer, err, "answer 1 of a")
		}
		time.Sleep(time.Hour)
		_, err = m.Do(t.Context(), "a", [32]byte{}, c.run("a"))
		wantError(t, err, nil)
		if c.of("a") != 2 {
			t.Error("was never forgotten")
		}
	})
}

// The file stays small however many operations there are.
func TestCompacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, d, Options{MaxOps: 100, MinAge: time.Second, Age: time.Second})
		greatest := 0
		for i := range 1500 {
			time.Sleep(20 * time.Millisecond)
			if _, err := m.Do(t.Context(), fmt.Sprint(i), [32]byte{}, func(context.Context) ([]byte, error) {
				return make([]byte, 2000), nil
			}); err != nil {
				t.Fatal(err)
			}
			b, _ := d.read(path)
			greatest = max(greatest, len(b))
		}
		if live := 100 * 2200; greatest > 3*live+slack {
			t.Errorf("the file had %d bytes for %d that are remembered", greatest, live)
		}
		c, err := parse(must(d.read(path)))
		if err != nil || c.damage != "" {
			t.Error(err, c.damage)
		}
	})
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// A disk that fails: nothing new is run, what is known is known, and when it is
// well again so is the Memory.
func TestDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, d, Options{})
		var c counter
		do := func(id string) ([]byte, error) { return m.Do(t.Context(), id, [32]byte{}, c.run(id)) }
		_, err := do("before")
		wantError(t, err, nil)

		var begun atomic.Bool
		answer, err := m.Do(t.Context(), "during", [32]byte{}, func(context.Context) ([]byte, error) {
			begun.Store(true)
			d.mu.Lock()
			d.failing = 1 << 30
			d.mu.Unlock()
			return []byte("done"), nil
		})
		wantError(t, err, ErrUnsaved)
		if answer != nil {
			t.Errorf("gave out %q, which is not saved", answer)
		}
		for range 3 {
			_, err = do("during")
			wantError(t, err, ErrUnsaved)
			_, err = do("after")
			wantError(t, err, ErrDisk)
			answer, err = do("before")
			wantAnswer(t, answer, err, "answer 1 of before")
			time.Sleep(2 * probeEvery)
		}
		if c.of("after") != 0 {
			t.Error("ran what could not be written down")
		}
		steps := d.steps
		for range 100 {
			_, err = do("after")
			wantError(t, err, ErrDisk)
		}
		if d.steps > steps+5 {
			t.Errorf("a failing disk was asked %d times in a moment", d.steps-steps)
		}

		d.restart()
		time.Sleep(probeEvery)
		answer, err = do("during")
		wantAnswer(t, answer, err, "done")
		answer, err = do("after")
		wantAnswer(t, answer, err, "answer 1 of after")
		m = reopen(t, m, d, Options{})
		answer, err = do("during")
		wantAnswer(t, answer, err, "done")
	})
}

// A disk that is read-only from the start.
func TestDiskFailsAtOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		m := mustOpen(t, d, Options{})
		var c counter
		_, err := m.Do(t.Context(), "a", [32]byte{}, c.run("a"))
		wantError(t, err, nil)
		wantError(t, m.Close(t.Context()), nil)
		d.failing = 1 << 30
		m = mustOpen(t, d, Options{})
		_, err = m.Do(t.Context(), "a", [32]byte{}, never(t))
		wantError(t, err, ErrUnsaved) // whether what was read is on stable storage is not known
		_, err = m.Do(t.Context(), "b", [32]byte{}, never(t))
		wantError(t, err, ErrDisk)
		d.restart()
		time.Sleep(probeEvery)
		answer, err := m.Do(t.Context(), "a", [32]byte{}, never(t))
		wantAnswer(t, answer, err, "answer 1 of a")
	})
}

func TestNewerFileIsLeftAlone(t *testing.T) {
	d := newMemDisk()
	newer := []byte(title + "2\n12345678")
	newer = append(newer, sum(newer, nil)...)
	newer = append(newer, "what it holds"...)
	d.names[path] = &inode{data: newer}
	_, err := open(d, path, Options{})
	wantError(t, err, ErrNewer)
	if b, _ := d.read(path); string(b) != string(newer) || len(d.names) != 1 {
		t.Error("it was touched")
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"Age": {Age: -1}, "MinAge": {MinAge: 25 * time.Hour}, "RunLimit": {RunLimit: -1}, "MaxOps": {MaxOps: -1},
	} {
		if _, err := open(newMemDisk(), path, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
