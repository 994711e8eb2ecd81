package workeragent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// What is told of a disk is the same for as long as it lasts, and names what it is.
func TestDiskTrouble(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string // empty: nothing is told
	}{
		{nil, ""},
		{&fs.PathError{Op: "write", Path: "/d/probe.123", Err: syscall.ENOSPC}, "is full"},
		{&fs.PathError{Op: "write", Path: "/d/probe.123", Err: syscall.EDQUOT}, "is full"},
		{&fs.PathError{Op: "open", Path: "/d/probe.123", Err: syscall.EROFS}, "read-only"},
		{&fs.PathError{Op: "open", Path: "/d/probe.123", Err: syscall.EIO}, "input/output error"},
		{os.ErrDeadlineExceeded, "does not answer"},
	} {
		got := diskTrouble("/d", c.err)
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") || strings.Contains(got, "123") {
			t.Errorf("%v: %q", c.err, got)
		}
	}
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	if err := probe(dir); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind are %v, %v", left, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "probe", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := probe(dir); err == nil {
		t.Error("a directory that takes no file is well")
	}
}

// Each change of what is wrong makes one account, signed and valid, and nothing else does.
func TestTroubleIsTold(t *testing.T) {
	id, err := identity.Load(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	n := newNode("n", id.PrivateKey(), 5, record.Profile{})
	n.open()
	seq := n.account.Load().Seq
	check := func(news bool, want ...string) {
		t.Helper()
		r := n.account.Load()
		if news {
			seq++
		}
		if !slices.Equal(r.Trouble, want) || r.Seq != seq {
			t.Errorf("account %d tells %q, want %d with %q", r.Seq, r.Trouble, seq, want)
		}
		if _, err := record.Accept(record.State{}, *r, record.Acceptance{Now: 1}); err != nil {
			t.Error(err)
		}
	}
	check(false)
	n.setTrouble("b", "full")
	check(true, "full")
	n.setTrouble("b", "full")
	check(false, "full")
	n.setTrouble("a", "hot")
	check(true, "full", "hot")
	n.setTrouble("b", "")
	check(true, "hot")
	n.setTrouble("a", strings.Repeat("x", 1000))
	check(true, strings.Repeat("x", 256))
	n.setTrouble("a", "")
	check(true)
}

// The disk is looked at again and again, also when one look never ends.
func TestWatchDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, err := identity.FromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
		if err != nil {
			t.Fatal(err)
		}
		n := newNode("n", id.PrivateKey(), 5, record.Profile{})
		n.open()
		a := &Agent{cfg: Config{DataDir: "/d"}, log: slog.New(slog.DiscardHandler)}
		looks := make(chan chan error) // each gives its outcome
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go a.watchDisk(ctx, n, func() error {
			outcome := make(chan error)
			select {
			case looks <- outcome:
				return <-outcome
			case <-ctx.Done():
				return nil
			}
		})
		look := func(err error, want string) {
			t.Helper()
			<-looks <- err
			synctest.Wait()
			if got := n.trouble(aboutDisk); !strings.Contains(got, want) || (got == "") != (want == "") {
				t.Errorf("%v: %q, want %q", err, got, want)
			}
		}
		look(nil, "")
		look(syscall.ENOSPC, "full")
		look(errors.New("torn"), "torn")
		look(nil, "")
		hung := <-looks
		time.Sleep(time.Hour)
		if got := n.trouble(aboutDisk); !strings.Contains(got, "does not answer") {
			t.Errorf("a disk that hangs: %q", got)
		}
		select {
		case <-looks:
			t.Error("a second look was begun beside one that hangs")
		default:
		}
		hung <- nil
		look(nil, "")
	})
}

// Where the boot number cannot be kept, or read, the node speaks on with a later one.
func TestBootAnyway(t *testing.T) {
	dir := t.TempDir()
	if boot, warning := bootAnyway(dir, 1000); boot != 1000 || warning != nil {
		t.Errorf("%d, %v", boot, warning)
	}
	t.Cleanup(func() { writeFile = atomicfile.Write })
	writeFile = func(string, []byte) error { return syscall.EIO }
	if boot, warning := bootAnyway(dir, 900); boot != 1001 || warning == nil {
		t.Errorf("%d, %v", boot, warning)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "boot")), os.Mkdir(filepath.Join(dir, "boot"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if boot, warning := bootAnyway(dir, 900); boot != 900 || warning == nil {
		t.Error(fmt.Sprint(boot, warning))
	}
}
