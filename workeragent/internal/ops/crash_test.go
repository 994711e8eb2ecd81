package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// script does some of everything, and returns what callers were answered.
func script(t *testing.T, d disk, c *counter) map[string]string {
	given := map[string]string{}
	m, err := open(d, path, Options{MaxAnswer: 40})
	if err != nil {
		t.Fatal(err)
	}
	do := func(id string, run Run) {
		if answer, err := m.Do(t.Context(), id, [32]byte{}, run); err == nil {
			given[id] = string(answer)
		}
	}
	do("a", c.run("a"))
	do("b", func(context.Context) ([]byte, error) { return nil, NotRun(errRefused) })
	do("b", c.run("b"))
	do("lost", func(ctx context.Context) ([]byte, error) {
		_, _ = c.run("lost")(ctx)
		return nil, errRefused
	})
	do("large", func(ctx context.Context) ([]byte, error) {
		_, _ = c.run("large")(ctx)
		return make([]byte, 50), nil
	})
	delete(given, "large")
	do("a", c.run("a"))
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m, err = open(d, path, Options{}); err != nil {
		return given // dead
	}
	do("c", c.run("c"))
	do("a", c.run("a"))
	_ = m.Close(t.Context())
	return given
}

// The process dies at every step that it makes at the disk, and the machine with
// it or not. Whoever repeats then gets the answer that was given, and nothing runs
// twice.
func TestDiesAtEveryStep(t *testing.T) {
	whole := newMemDisk()
	script(t, whole, new(counter))
	for step := 1; step <= whole.steps; step++ {
		for variant := range 8 {
			d, c := newMemDisk(), new(counter)
			d.dieAt = step
			given := script(t, d, c)
			if variant == 0 {
				d.restart()
			} else {
				d.powerCut(rand.New(rand.NewPCG(uint64(step), uint64(variant))))
			}
			m := mustOpen(t, d, Options{MaxAnswer: 40})
			if m.trustAt != 0 {
				t.Errorf("step %d, variant %d: a crash was taken for damage", step, variant)
			}
			for _, id := range []string{"a", "b", "lost", "large", "c"} {
				answer, err := m.Do(t.Context(), id, [32]byte{}, c.run(id))
				if c.of(id) > 1 {
					t.Errorf("step %d, variant %d: %s ran %d times", step, variant, id, c.of(id))
				}
				was, ok := given[id]
				switch {
				case ok && (err != nil || string(answer) != was):
					t.Errorf("step %d, variant %d: %s was answered %q and then %q, error %v", step, variant, id, was, answer, err)
				case err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrTooLarge):
					t.Errorf("step %d, variant %d: %s: %v", step, variant, id, err)
				}
			}
		}
	}
}

// someFiles returns files with the same operations: as it is while the last of them
// runs, when that has ended, and rewritten. It returns their ids too.
func someFiles(t *testing.T) (files map[string][]byte, ids []string) {
	d := newMemDisk()
	m := mustOpen(t, d, Options{})
	for i := range 5 {
		id := fmt.Sprint("op-", i)
		ids = append(ids, id)
		if _, err := m.Do(t.Context(), id, [32]byte{}, new(counter).run(id)); err != nil {
			t.Fatal(err)
		}
	}
	files = map[string][]byte{}
	ids = append(ids, "last")
	if _, err := m.Do(t.Context(), "last", [32]byte{}, func(ctx context.Context) ([]byte, error) {
		files["running"] = must(d.read(path))
		return new(counter).run("last")(ctx)
	}); err != nil {
		t.Fatal(err)
	}
	files["appended"] = must(d.read(path))
	reopen(t, m, d, Options{})
	files["rewritten"] = must(d.read(path))
	return files, ids
}

// Every byte of a file is damaged in turn. No operation that was in it runs again
// while it is promised to be remembered, and after that the Memory is as useful as
// before.
func TestDamageEverywhere(t *testing.T) {
	files, ids := someFiles(t)
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			for at := range file {
				synctest.Test(t, func(t *testing.T) { damageAt(t, file, at, ids) })
			}
		})
	}
}

func damageAt(t *testing.T, file []byte, at int, ids []string) {
	d := newMemDisk()
	damaged := bytes.Clone(file)
	damaged[at] ^= 0x20
	d.names[path] = &inode{data: damaged, synced: len(damaged)}
	m, err := open(d, path, Options{})
	if err != nil {
		t.Errorf("byte %d: %v", at, err)
		return
	}
	for range 2 { // it is not forgotten by a restart either
		time.Sleep(9 * time.Minute)
		for _, id := range ids {
			answer, err := m.Do(t.Context(), id, [32]byte{}, never(t))
			if err == nil && string(answer) != "answer 1 of "+id || err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnknown) {
				t.Errorf("byte %d: %s: answer %q, error %v", at, id, answer, err)
			}
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if m, err = open(d, path, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	refused := m.trustAt > 0
	if kept, err := d.read(path + ".damaged"); refused && (err != nil || !bytes.Equal(kept, damaged)) {
		t.Errorf("byte %d: the damaged file was not kept: %v", at, err)
	}
	_, err = m.Do(t.Context(), "new", [32]byte{}, new(counter).run("new"))
	if refused != errors.Is(err, ErrDamaged) {
		t.Errorf("byte %d: error %v", at, err)
	}
	time.Sleep(10 * time.Minute)
	for _, id := range append(ids, "new") {
		if _, err := m.Do(t.Context(), id, [32]byte{}, new(counter).run(id)); err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("byte %d: after the time %s: %v", at, id, err)
		}
	}
	_ = m.Close(t.Context())
}

// A power cut zeroes any part of what was not on stable storage: of the last frame, of
// the mark before it, of both. That is no damage, and what was on stable storage is read.
func TestTornAnywhere(t *testing.T) {
	whole := newMemDisk()
	script(t, whole, new(counter))
	for last := range whole.steps + 1 { // every state of the disk on the way there
		d := newMemDisk()
		d.dieAt = last
		script(t, d, new(counter))
		i := d.names[path]
		if i == nil {
			continue
		}
		before, err := parse(i.data[:i.synced])
		if err != nil || before.damage != "" {
			t.Fatalf("step %d: %+v, %v", last, before, err)
		}
		for from := i.synced; from < len(i.data); from++ {
			for to := from + 1; to <= len(i.data); to++ {
				torn := bytes.Clone(i.data)
				clear(torn[from:to])
				c, err := parse(torn)
				if err != nil || c.damage != "" {
					t.Fatalf("step %d, torn from %d to %d of %d to %d: taken for damage: %s, error %v", last, from, to, i.synced, len(torn), c.damage, err)
				}
				if n := len(before.records); len(c.records) < n || !sameRecords(c.records[:n], before.records) {
					t.Fatalf("step %d, torn from %d to %d: %d records are read of %d", last, from, to, len(c.records), n)
				}
			}
		}
	}
}

// What is damaged of a frame of records is damage wherever another frame follows, and
// what is damaged of a mark between them never is, for nothing is lost with it.
func TestDamageIsWhatLosesRecords(t *testing.T) {
	files, _ := someFiles(t)
	for name, file := range files {
		all, err := parse(file)
		if err != nil {
			t.Fatal(err)
		}
		m, at, _ := header(file)
		for at < len(file) {
			content, size, ok := frame(file[at:], m)
			if !ok {
				t.Fatalf("%s: no frame at %d", name, at)
			}
			for part := 1; part <= size && at+size < len(file); part++ {
				damaged := bytes.Clone(file)
				for i := at; i < at+part; i++ {
					damaged[i] ^= 0xff
				}
				c, err := parse(damaged)
				if err != nil || (c.damage != "") != (len(content) > 0) {
					t.Fatalf("%s: %d bytes at %d, of a frame with %d: damage %q, error %v", name, part, at, len(content), c.damage, err)
				}
				if len(content) == 0 && !sameRecords(c.records, all.records) {
					t.Fatalf("%s: %d bytes of the mark at %d: %d records are read of %d", name, part, at, len(c.records), len(all.records))
				}
			}
			at += size
		}
	}
}

// A file that ends anywhere is read as far as it goes, and goes on from there.
func TestCutOffEverywhere(t *testing.T) {
	files, ids := someFiles(t)
	for name, file := range files {
		_, head, _ := header(file)
		for at := head; at < len(file); at++ {
			d := newMemDisk()
			d.names[path] = &inode{data: file[:at], synced: at}
			m := mustOpen(t, d, Options{})
			c, missing := new(counter), false
			for _, id := range ids {
				answer, err := m.Do(t.Context(), id, [32]byte{}, c.run(id))
				if !errors.Is(err, ErrUnknown) {
					wantAnswer(t, answer, err, "answer 1 of "+id)
				}
				// What is missing is missing at the end.
				if missing && c.of(id) == 0 {
					t.Errorf("%s cut at %d: %s is there, one before it is not", name, at, id)
				}
				missing = c.of(id) == 1
			}
			reopen(t, m, d, Options{})
			if c, err := parse(must(d.read(path))); err != nil || c.damage != "" {
				t.Errorf("%s cut at %d and continued: %v %s", name, at, err, c.damage)
			}
		}
	}
}
