package membership

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

const fileVersion = 1

// file is what the file holds.
type file struct {
	Version int     `json:"version"`
	Masters []*Info `json:"masters"`
}

// Load reads the file. What it holds counts as published.
func (t *Table) Load() error {
	var known file
	b, err := atomicfile.ReadJSON(t.cfg.Path, fileVersion, &known)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.As(err, new(*fs.PathError)):
		return fmt.Errorf("known masters: %w", err)
	case errors.Is(err, atomicfile.ErrNewer):
		return fmt.Errorf("known masters: %s: %w", t.cfg.Path, err)
	case err != nil:
		// Nothing in it is lost for good: the masters say it all again.
		t.cfg.Logger.Warn("the file of known masters cannot be read and is made anew", "path", t.cfg.Path, "err", err)
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saved = bytes.TrimSuffix(b, []byte("\n"))
	for _, info := range known.Masters {
		if info == nil {
			continue
		}
		p := &member{Info: *info}
		p.status = p.statusAt(time.Now())
		t.members[p.ID] = p
	}
	return nil
}

// Keep saves what has changed until ctx ends. It waits for the disk, for which nobody
// waits who hears of other masters.
func (t *Table) Keep(ctx context.Context) {
	for {
		select {
		case <-t.changed:
		case <-ctx.Done():
			return
		}
		if err := t.Save(); err != nil {
			t.cfg.Logger.Warn("cannot save the known masters", "err", err)
		}
	}
}

// Waiting is for how long the file has been being written.
func (t *Table) Waiting() time.Duration {
	if since := t.writing.Load(); since != nil {
		return time.Since(*since)
	}
	return 0
}

// saveSoon has Keep save what has changed.
func (t *Table) saveSoon() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Save writes the file if anything that others should be found by has changed.
func (t *Table) Save() error {
	t.saving.Lock()
	defer t.saving.Unlock()
	t.mu.Lock()
	list := make([]*Info, 0, len(t.members))
	for _, p := range t.sorted() {
		list = append(list, &p.Info)
	}
	b, err := json.MarshalIndent(file{fileVersion, list}, "", "  ")
	same := bytes.Equal(b, t.saved) || len(list) == 0 && t.saved == nil
	t.mu.Unlock()
	if err != nil || same {
		return err
	}
	now := time.Now()
	t.writing.Store(&now)
	defer t.writing.Store(nil)
	if err := atomicfile.Write(t.cfg.Path, append(b, '\n')); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saved = b
	return nil
}
