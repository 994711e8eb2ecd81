package explorer

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// slowReader is a reader of events that stops to read at some time.
type slowReader struct {
	header   http.Header
	got      strings.Builder
	deadline time.Time
	stuck    atomic.Bool
}

var errDeadline = errors.New("deadline")

func (r *slowReader) Header() http.Header                    { return r.header }
func (r *slowReader) WriteHeader(int)                        {}
func (r *slowReader) FlushError() error                      { return nil }
func (r *slowReader) SetWriteDeadline(until time.Time) error { r.deadline = until; return nil }

func (r *slowReader) Write(b []byte) (int, error) {
	if r.stuck.Load() {
		time.Sleep(time.Until(r.deadline))
		return 0, errDeadline
	}
	return r.got.Write(b)
}

func newStreamServer(t *testing.T) (*Server, *fakeStore) {
	s, err := New(testConfig(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	fake := newFakeStore()
	s.store = fake
	return s, fake
}

func TestStreamKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStreamServer(t)
		r := &slowReader{header: http.Header{}}
		ctx, cancel := context.WithTimeout(t.Context(), 4*keepAlive+time.Second)
		defer cancel()
		err := s.stream(ctx, &stream{w: r, conn: http.NewResponseController(r)}, "")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n := strings.Count(r.got.String(), ": alive\n\n"); n != 4 {
			t.Errorf("%d comments: %s", n, r.got.String())
		}
	})
}

func TestStreamDropsSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, fake := newStreamServer(t)
		r := &slowReader{header: http.Header{}}
		began := time.Now()
		ended := make(chan error)
		go func() { ended <- s.stream(t.Context(), &stream{w: r, conn: http.NewResponseController(r)}, "") }()
		synctest.Wait()
		r.stuck.Store(true)
		fake.set(func() {
			for range 1000 {
				fake.emit(crdtstore.Change{Kind: crdtstore.VMChange, VM: &crdtstore.VM{SID: "v"}})
			}
		})
		if err := <-ended; !errors.Is(err, errDeadline) {
			t.Error(err)
		}
		if took := time.Since(began); took > streamWriteTimeout {
			t.Error("dropped after", took)
		}
	})
}
