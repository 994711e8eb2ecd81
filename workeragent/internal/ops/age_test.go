package ops

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// begin begins an operation that ends when a value is sent to it: with that error, or
// with an answer for nil.
func begin(t *testing.T, m *Journal, id string) (end chan<- error, result <-chan error) {
	t.Helper()
	how, got := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := m.Do(t.Context(), id, [32]byte{}, func(context.Context) ([]byte, error) {
			return []byte("answer of " + id), <-how
		})
		got <- err
	}()
	synctest.Wait()
	return how, got
}

// An operation is remembered for a time after its end, however it ended and however long
// it took.
func TestAgesFromTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		ends, kept error
	}{"answered": {nil, nil}, "unknown": {errRefused, ErrUnknown}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := Options{Age: 2 * time.Hour, MinAge: time.Hour, RunLimit: 10 * time.Hour, MaxOps: 1}
				m := mustOpen(t, newMemDisk(), o)
				end, result := begin(t, m, "a")
				time.Sleep(5 * time.Hour)
				end <- c.ends
				<-result
				time.Sleep(o.MinAge - time.Second)
				_, err := m.Do(t.Context(), "b", [32]byte{}, never(t)) // has no room before a is old
				wantError(t, err, ErrFull)
				_, err = m.Do(t.Context(), "a", [32]byte{}, never(t))
				wantError(t, err, c.kept)
				time.Sleep(o.Age - o.MinAge)
				_, err = m.Do(t.Context(), "a", [32]byte{}, never(t))
				wantError(t, err, c.kept)
				time.Sleep(time.Second)
				_, err = m.Do(t.Context(), "a", [32]byte{}, new(counter).run("a"))
				wantError(t, err, nil)
			})
		})
	}
}

// Of an operation that a process left behind nobody knows when it ended: that it did
// before the process is all that is certain. So it ages from the last thing that the
// process wrote down, be it an end or a beginning.
func TestLeftBehindAgesFromTheLastRecord(t *testing.T) {
	for name, last := range map[string]error{"end": nil, "beginning": errors.New("it goes on"), "taken back": NotRun(errRefused)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := Options{Age: 2 * time.Hour, MinAge: time.Hour, RunLimit: 10 * time.Hour}
				d := newMemDisk()
				m := mustOpen(t, d, o)
				end, _ := begin(t, m, "a")
				time.Sleep(5 * time.Hour)
				endB, resultB := begin(t, m, "b")
				if name != "beginning" {
					endB <- last
					<-resultB
				}
				file := must(d.read(path))
				if end <- nil; name == "beginning" {
					endB <- nil
				}
				wantError(t, m.Close(t.Context()), nil)

				d = newMemDisk()
				d.names[path] = &inode{data: file, synced: len(file)}
				m = mustOpen(t, d, o)
				time.Sleep(o.Age - time.Second)
				_, err := m.Do(t.Context(), "a", [32]byte{}, never(t))
				wantError(t, err, ErrUnknown)
				time.Sleep(time.Second)
				_, err = m.Do(t.Context(), "a", [32]byte{}, new(counter).run("a"))
				wantError(t, err, nil)
			})
		})
	}
}

// What the zero Options promise: a day, and ten minutes where there is no room.
func TestAgesByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counter
		do := func(m *Journal, id string) error {
			_, err := m.Do(t.Context(), id, [32]byte{}, c.run(id))
			return err
		}
		m := mustOpen(t, newMemDisk(), Options{})
		wantError(t, do(m, "a"), nil)
		time.Sleep(24*time.Hour - time.Millisecond)
		wantError(t, do(m, "a"), nil)
		if c.of("a") != 1 {
			t.Error("was forgotten before a day was over")
		}
		time.Sleep(time.Millisecond)
		wantError(t, do(m, "a"), nil)
		if c.of("a") != 2 {
			t.Error("is remembered for longer than a day")
		}

		m = mustOpen(t, newMemDisk(), Options{MaxOps: 1})
		wantError(t, do(m, "b"), nil)
		time.Sleep(10*time.Minute - time.Millisecond)
		wantError(t, do(m, "c"), ErrFull)
		time.Sleep(time.Millisecond)
		wantError(t, do(m, "c"), nil)

		m = mustOpen(t, newMemDisk(), Options{})
		began := time.Now()
		_, err := m.Do(t.Context(), "long", [32]byte{}, func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		wantError(t, err, ErrUnknown)
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("an operation could run for %v, which is not what it is remembered for at least", took)
		}
	})
}

// Where there is no room the operation that ended first gives way, and no other. What has
// given way takes no room.
func TestOldestGivesWay(t *testing.T) {
	for name, o := range map[string]Options{"operations": {MaxOps: 3}, "bytes": {MaxBytes: 3 * 101}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o.Age, o.MinAge = time.Hour, time.Minute
				m := mustOpen(t, newMemDisk(), o)
				runs := ""
				do := func(ids string) {
					t.Helper()
					for _, id := range ids {
						_, err := m.Do(t.Context(), string(id), [32]byte{}, func(context.Context) ([]byte, error) {
							runs += string(id)
							return make([]byte, 100), nil
						})
						wantError(t, err, nil)
						time.Sleep(time.Second)
					}
				}
				do("abc")
				for range 3 {
					time.Sleep(o.MinAge)
					runs = ""
					if do("bcdcd"); runs != "d" {
						t.Errorf("%q ran, of which only d is new", runs)
					}
					time.Sleep(o.MinAge)
					runs = ""
					if do("cdadab"); runs != "ab" { // in place of b, and of c
						t.Errorf("%q ran, of which only a and b are not remembered", runs)
					}
					time.Sleep(o.MinAge)
					if do("c"); len(m.ops) != 3 { // a, b, c again, in the order d, a, b, c
						t.Fatalf("%d are remembered", len(m.ops))
					}
				}
			})
		})
	}
}

// A Memory that began late does not know what was asked for before. While that may be
// repeated, it refuses what is called a repetition and runs what is not; a restart does
// not shorten that.
func TestBeganLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, o := newMemDisk(), Options{Late: true}
		m := mustOpen(t, d, o)
		var c counter
		refused := func(after time.Duration) {
			t.Helper()
			_, err := m.Repeat(t.Context(), "before", [32]byte{}, never(t))
			wantError(t, err, ErrFresh)
			var wait *WaitError
			if !errors.As(err, &wait) || wait.After != after {
				t.Errorf("error %v, want one that says %v", err, after)
			}
		}
		refused(10 * time.Minute)
		_, err := m.Do(t.Context(), "new", [32]byte{}, c.run("new"))
		wantError(t, err, nil)
		answer, err := m.Repeat(t.Context(), "new", [32]byte{}, never(t))
		wantAnswer(t, answer, err, "answer 1 of new")
		time.Sleep(4 * time.Minute)
		_, err = m.Do(t.Context(), "later", [32]byte{}, c.run("later")) // the clock is carried on in records
		wantError(t, err, nil)
		m = reopen(t, m, d, o)
		refused(6 * time.Minute)
		time.Sleep(6*time.Minute - time.Millisecond)
		refused(time.Millisecond)
		time.Sleep(time.Millisecond)
		_, err = m.Repeat(t.Context(), "before", [32]byte{}, c.run("before"))
		wantError(t, err, nil)

		m = mustOpen(t, newMemDisk(), Options{}) // one that was there from the beginning
		_, err = m.Repeat(t.Context(), "before", [32]byte{}, c.run("before"))
		wantError(t, err, nil)
	})
}

// The file is written anew while operations run. Whatever is found of the file later,
// they have begun: they are unknown, and not run again.
func TestRewrittenWhileTheyRun(t *testing.T) {
	for name, rewrite := range map[string]func(*testing.T, *memDisk, *Journal){
		"because the disk failed": func(t *testing.T, d *memDisk, m *Journal) {
			d.failing = 1
			_, err := m.Do(t.Context(), "fails", [32]byte{}, never(t))
			wantError(t, err, ErrDisk)
			time.Sleep(probeEvery)
		},
		"because it is long": func(_ *testing.T, _ *memDisk, m *Journal) { m.journal.limit = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newMemDisk()
				m := mustOpen(t, d, Options{})
				ids := []string{"a", "b"}
				var ends []chan<- error
				for _, id := range ids {
					end, _ := begin(t, m, id)
					ends = append(ends, end)
				}
				old := m.journal.mark
				rewrite(t, d, m)
				_, err := m.Do(t.Context(), "other", [32]byte{}, new(counter).run("other"))
				wantError(t, err, nil)
				if m.journal.mark == old {
					t.Fatal("the file was not written anew")
				}
				file := must(d.read(path))
				for _, end := range ends {
					end <- nil
				}

				d = newMemDisk()
				d.names[path] = &inode{data: file, synced: len(file)}
				next := mustOpen(t, d, Options{})
				for _, id := range ids {
					if _, err := next.Do(t.Context(), id, [32]byte{}, never(t)); !errors.Is(err, ErrUnknown) {
						t.Errorf("%s: error %v", id, err)
					}
				}
				answer, err := next.Do(t.Context(), "other", [32]byte{}, never(t))
				wantAnswer(t, answer, err, "answer 1 of other")
			})
		})
	}
}

// An operation whose id was forgotten and used anew is the new one, also where the file
// still has the old one.
func TestFileHasTwoOfAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, o := newMemDisk(), Options{Age: time.Hour}
		m := mustOpen(t, d, o)
		_, err := m.Do(t.Context(), "a", [32]byte{}, new(counter).run("a"))
		wantError(t, err, nil)
		time.Sleep(o.Age)
		_, err = m.Do(t.Context(), "a", [32]byte{}, func(context.Context) ([]byte, error) { return []byte("the second"), nil })
		wantError(t, err, nil)
		time.Sleep(o.Age / 2)
		_, err = m.Do(t.Context(), "b", [32]byte{}, new(counter).run("b"))
		wantError(t, err, nil)
		m = reopen(t, m, d, o)
		for range 2 {
			answer, err := m.Do(t.Context(), "a", [32]byte{}, never(t))
			wantAnswer(t, answer, err, "the second")
			time.Sleep(o.Age/2 - time.Second) // the first is old, the second is not
		}
		if len(m.ops) != 2 || len(m.ended) != 2 {
			t.Errorf("%d are remembered, %d have ended; it is a and b", len(m.ops), len(m.ended))
		}
	})
}
