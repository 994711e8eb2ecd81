package watch

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
)

var errClosed = errors.New("closed")

func TestBufferKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New[int]("run")
		const n = 1000
		var readers sync.WaitGroup
		for r := range 5 {
			readers.Go(func() {
				for i := range n {
					c, err := h.next(t.Context(), uint64(i))
					if err != nil || c != i {
						t.Errorf("reader %d at %d: %+v, %v", r, i, c, err)
						return
					}
				}
			})
		}
		for i := range n {
			h.Add(i)
			if i%100 == 0 {
				synctest.Wait() // all readers wait for more
			}
		}
		readers.Wait()
	})
}

func TestBufferForgetsTheOldest(t *testing.T) {
	h := New[int]("run")
	for i := range Size + 10 {
		h.Add(i)
	}
	for at, want := range map[uint64]error{
		0: page.ErrCursor, 9: page.ErrCursor, 10: nil, Size + 9: nil, Size + 11: page.ErrCursor, 1 << 63: page.ErrCursor, 1<<64 - 1: page.ErrCursor,
	} {
		c, err := h.next(t.Context(), at)
		if !errors.Is(err, want) || want == nil && uint64(c) != at {
			t.Errorf("at %d: %+v, %v, want %v", at, c, err, want)
		}
	}
}

func TestBufferCursors(t *testing.T) {
	h := New[int]("run")
	for _, at := range []uint64{0, 1, 1<<64 - 1} {
		if got, err := h.parse(h.Cursor(at)); err != nil || got != at {
			t.Errorf("%d comes back as %d, %v", at, got, err)
		}
	}
	for _, c := range []string{"", "-", "run", "run-", "run--1", "run-x", "run-+1", "run-1-2", "other-1", "-1", "run-18446744073709551616"} {
		if at, err := h.parse(c); !errors.Is(err, page.ErrCursor) {
			t.Errorf("%q was taken as %d, %v", c, at, err)
		}
	}
}

func TestBufferCloseWakesReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New[int]("run")
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 3)
		for range 2 {
			go func() {
				_, err := h.next(t.Context(), 0)
				errs <- err
			}()
		}
		go func() {
			_, err := h.next(ctx, 0)
			errs <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error("the one whose caller has gone:", err)
		}
		h.Close(errClosed)
		h.Close(errClosed)
		for range 2 {
			if err := <-errs; !errors.Is(err, errClosed) {
				t.Error(err)
			}
		}
		h.Add(1) // late changes do no harm
		if _, err := h.next(t.Context(), 0); !errors.Is(err, errClosed) {
			t.Error(err)
		}
	})
}

// Who stops and follows again from where it stopped has seen each change once.
func TestFollowResumes(t *testing.T) {
	h := New[int]("run")
	cursor := h.End()
	for i := range 10 {
		h.Add(i)
	}
	var got []int
	for len(got) < 10 {
		for e, err := range h.Follow(t.Context(), cursor) {
			if err != nil {
				t.Fatal(err)
			}
			got, cursor = append(got, e.Change), h.Cursor(e.At+1)
			if len(got)%3 == 0 || len(got) == 10 {
				break
			}
		}
	}
	for i, c := range got {
		if c != i {
			t.Fatalf("%v", got)
		}
	}
	if cursor != h.End() {
		t.Errorf("stopped at %s, the end is %s", cursor, h.End())
	}
	h.Close(errClosed)
	for _, wrong := range []struct {
		cursor string
		want   error
	}{{"other-0", page.ErrCursor}, {cursor, errClosed}} {
		n := 0
		for _, err := range h.Follow(t.Context(), wrong.cursor) {
			if n++; !errors.Is(err, wrong.want) || n > 1 {
				t.Errorf("%s: %v", wrong.cursor, err)
			}
		}
	}
}

func TestSince(t *testing.T) {
	h := New[int]("run")
	for i := range Size + 5 {
		h.Add(i)
	}
	for at, want := range map[uint64]int{5: Size, Size: 5, Size + 5: 0} {
		if got, end, ok := h.Since(at); len(got) != want || end != Size+5 || !ok || want > 0 && uint64(got[0]) != at {
			t.Errorf("since %d: %d changes, to %d, %v", at, len(got), end, ok)
		}
	}
	for _, at := range []uint64{4, Size + 6} {
		if got, end, ok := h.Since(at); ok || len(got) > 0 || end != Size+5 {
			t.Errorf("since %d: %d changes, to %d, %v", at, len(got), end, ok)
		}
	}
}
