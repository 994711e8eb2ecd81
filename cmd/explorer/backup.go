package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// saved is what backup prints with --json.
type saved struct {
	File  string `json:"file"`
	Nodes uint64 `json:"nodes"` // removed ones included
	Bytes int64  `json:"bytes"`
}

func (p *program) backupCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "backup FILE", Args: needs("a FILE to write, or - for stdout"),
		Short: "Write a master's records into a file",
		Long: `Write all records of a master into a file, those of removed nodes included. The
master goes on serving meanwhile. The file appears under its name once it is whole,
checked and on disk; only its owner can read it. With - the backup goes to stdout,
and it is whole if the exit code is 0.

Every master holds all records, so one of them is enough. Keys and tokens of the
master are not in the backup.`,
	}
	r := p.bind(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if there is one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var s saved
		var err error
		summary := *r.program
		if args[0] == "-" {
			summary.out = r.err // stdout is the backup
			s, err = r.fetchBackup(cmd.Context(), r.out)
		} else {
			s, err = r.backupTo(cmd.Context(), args[0], force)
		}
		if err != nil {
			return err
		}
		if s.File = args[0]; r.json {
			return summary.printJSON(s)
		}
		if s.File == "-" {
			s.File = "the backup"
		}
		fmt.Fprintf(summary.out, "%d nodes are in %s, %s bytes\n", s.Nodes, printable(s.File), size(uint64(s.Bytes)))
		return nil
	}
	return cmd
}

// backupTo writes a backup beside the file that it is to become.
func (r *remote) backupTo(ctx context.Context, path string, force bool) (s saved, err error) {
	if err := mayWrite(path, force); err != nil {
		return s, err // before anything is sent
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return s, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name()) // where it still has that name
	}()
	if s, err = r.fetchBackup(ctx, f); err != nil {
		return s, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return s, err
	}
	if err := mayWrite(path, force); err != nil {
		return s, err
	}
	if force {
		err = os.Rename(f.Name(), path)
	} else if err = os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		err = os.Rename(f.Name(), path) // a file system without links
	}
	if err != nil {
		return s, err
	}
	return s, syncDir(filepath.Dir(path))
}

// mayWrite returns an error where a backup would take the place of something.
func mayWrite(path string, force bool) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file; name another, or - for stdout", path)
	case !force:
		return fmt.Errorf("%s exists; --force replaces it", path)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// fetchBackup writes a backup to w. The error is nil if it is whole.
func (r *remote) fetchBackup(ctx context.Context, w io.Writer) (saved, error) {
	c, err := r.dial()
	if err != nil {
		return saved{}, err
	}
	defer c.Close()
	ctx, wait := r.stallGuard(ctx)
	defer wait.stop()
	body, err := c.Download(ctx, "/backup", nil)
	if err != nil {
		return saved{}, wait.explain(ctx, err)
	}
	defer body.Close()
	check := &checked{sum: sha256.New()}
	if _, err := io.Copy(io.MultiWriter(check, w), coming{body, wait}); err != nil {
		return saved{}, fmt.Errorf("the backup broke off after %d bytes: %w", check.n, wait.explain(ctx, err))
	}
	nodes, err := check.end()
	return saved{Nodes: nodes, Bytes: check.n}, err
}

func (p *program) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE", Args: needs("a FILE that backup wrote, or - for stdin"),
		Short: "Merge the records of a backup into a master's",
		Long: `Merge the records of a backup into those of a master, which hands them on to the
masters it knows. What is newer there stays, and a node that was removed there stays
removed, so this can be done at any time, and on several masters. The master checks
the whole file before it changes anything.`,
	}
	r := p.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in := io.Reader(os.Stdin)
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if info, err := f.Stat(); err == nil && info.IsDir() {
				return fmt.Errorf("%s is a directory", args[0])
			}
			in = f
		}
		result, err := r.sendBackup(cmd.Context(), in)
		if err != nil {
			return err
		}
		return show(r, result, func(info crdtstore.BackupInfo) {
			fmt.Fprintf(r.out, "%d nodes are in the backup, %d changed\n", info.Nodes, info.Changed)
		})
	}
	return cmd
}

func (r *remote) sendBackup(ctx context.Context, in io.Reader) (json.RawMessage, error) {
	c, err := r.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, wait := r.stallGuard(ctx)
	defer wait.stop()
	answer, err := c.Upload(ctx, "/restore", going{in, wait})
	if err != nil {
		return nil, wait.explain(ctx, err)
	}
	defer answer.Close()
	result, err := io.ReadAll(io.LimitReader(answer, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("the answer broke off: %w", err)
	}
	return result, nil
}

// stallGuard gives a transfer up when the master has not moved on for the time
// that --timeout gives. As a whole it may take any time.
type stallGuard struct {
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	broken atomic.Pointer[error] // why there is nothing more to read
}

func (r *remote) stallGuard(ctx context.Context) (context.Context, *stallGuard) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &stallGuard{limit: r.limit(), cancel: cancel}
	p.timer = time.AfterFunc(p.limit, func() {
		cancel(fmt.Errorf("the master has been silent for %v; --timeout allows more", p.limit))
	})
	return ctx, p
}

func (p *stallGuard) stop() {
	p.timer.Stop()
	p.cancel(nil)
}

// explain returns the reason behind an error, where it is on this side.
func (p *stallGuard) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if broken := p.broken.Load(); broken != nil {
		return *broken
	}
	return err
}

// coming is what the master sends: it is waited for while it is read.
type coming struct {
	io.Reader
	*stallGuard
}

func (c coming) Read(b []byte) (int, error) {
	c.timer.Reset(c.limit)
	defer c.timer.Stop()
	return c.Reader.Read(b)
}

// going is what the master gets: it is waited for until it takes the next piece.
// At the end it has work to do that may take long, and says itself when it is done.
type going struct {
	io.Reader
	*stallGuard
}

func (g going) Read(b []byte) (int, error) {
	g.timer.Stop()
	n, err := g.Reader.Read(b)
	if err == nil {
		g.timer.Reset(g.limit)
	} else if !errors.Is(err, io.EOF) {
		g.broken.CompareAndSwap(nil, &err)
	}
	return n, err
}

// A backup begins with a line of text, and ends with the number of nodes and the
// SHA-256 of all that stands before it; docs/protocol.md has the rest.
const (
	backupHead = "hero_explorer backup "
	backupTail = 8 + sha256.Size
)

// checked checks a backup that is written to it.
type checked struct {
	n    int64
	head []byte
	tail []byte // not yet in the sum
	sum  hash.Hash
}

func (c *checked) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	if missing := len(backupHead) - len(c.head); missing > 0 {
		c.head = append(c.head, b[:min(missing, len(b))]...)
	}
	c.tail = append(c.tail, b...)
	if settled := len(c.tail) - backupTail; settled > 0 {
		_, _ = c.sum.Write(c.tail[:settled])
		c.tail = append(c.tail[:0], c.tail[settled:]...)
	}
	return len(b), nil
}

// end returns the number of nodes, and an error where the backup is not whole.
func (c *checked) end() (nodes uint64, err error) {
	if string(c.head) != backupHead {
		return 0, errors.New("the master answered with something else than a backup; is its version another one?")
	}
	if len(c.tail) == backupTail {
		_, _ = c.sum.Write(c.tail[:8])
		if bytes.Equal(c.sum.Sum(nil), c.tail[8:]) {
			return binary.BigEndian.Uint64(c.tail), nil
		}
	}
	return 0, fmt.Errorf("the backup was damaged on its way, %d bytes came; try again", c.n)
}
