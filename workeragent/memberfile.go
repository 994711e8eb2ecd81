package workeragent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

const (
	// mastersFile is where the membership is kept, below the data directory, so
	// that an agent whose configured addresses are all gone finds the grid.
	mastersFile    = "masters.json"
	mastersVersion = 1

	// saveEvery is how often the file is written at most.
	saveEvery = 5 * time.Second
)

// memberFile is the file. One goroutine uses it at a time.
type memberFile struct {
	path string // empty: none is kept
	text []byte // what it holds; nil: nothing of use
}

// savedMasters is what the file holds.
type savedMasters struct {
	Version int           `json:"version"`
	Masters []savedMaster `json:"masters"`
	// Leads tells to which master a configured address led last.
	Leads map[string]string `json:"leads"`
	// Pins tells which master was first met at an edge address that is configured without
	// an id.
	Pins map[string]string `json:"pins,omitempty"`
}

type savedMaster struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	RPCURLs   []string `json:"rpc_urls"`
	EdgeAddrs []string `json:"edge_addrs"`
}

// read reads the file. An error wraps [fs.ErrNotExist] where there is none, and
// [atomicfile.ErrNewer] where it is not for this program.
func (f *memberFile) read() (m savedMasters, err error) {
	text, err := atomicfile.ReadJSON(f.path, mastersVersion, &m)
	if err == nil {
		f.text = text
	}
	return m, err
}

// write writes the file if it would hold something else than it does.
func (f *memberFile) write(m savedMasters) error {
	text, err := json.MarshalIndent(m, "", "  ")
	text = append(text, '\n')
	if err != nil || f.path == "" || bytes.Equal(text, f.text) || f.text == nil && len(m.Masters) == 0 {
		return err
	}
	if err := writeFile(f.path, text); err != nil {
		return err
	}
	f.text = text
	return nil
}

// load takes what the file holds, before anything else uses the membership. What cannot be
// used is a warning: the masters say it all again. Addresses on this machine are taken if
// the configured ones are.
func (d *membership) load(fromHere bool) {
	file, err := d.file.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case errors.Is(err, atomicfile.ErrNewer):
		d.log.Warn("the file of known masters was written by a newer version; it is left alone and not used", "path", d.file.path)
		d.file.path = ""
		return
	case err != nil:
		d.log.Warn("the file of known masters cannot be read and will be made anew", "path", d.file.path, "error", err)
		return
	}
	var infos []memberInfo
	for _, m := range file.Masters {
		if validID(m.ID) {
			infos = append(infos, memberInfo{ID: m.ID, Name: m.Name, RPCURLs: m.RPCURLs, EdgeAddrs: m.EdgeAddrs})
		}
	}
	d.learn(infos, fromHere)
	for _, p := range d.endpoints {
		if id := file.Pins[p.String()]; p.edge != "" && validID(id) {
			d.pins[p.String()] = id
		}
	}
	for _, l := range d.links {
		if id := file.Leads[l.status.Address]; l.status.Master == "" && validID(id) {
			l.status.Master = id
		}
	}
}

// save writes the file if the membership has changed.
func (d *membership) save() error {
	d.mu.Lock()
	file := savedMasters{Version: mastersVersion, Masters: []savedMaster{}, Leads: map[string]string{}, Pins: maps.Clone(d.pins)}
	for _, id := range slices.Sorted(maps.Keys(d.known)) {
		if m := d.known[id]; !m.left {
			file.Masters = append(file.Masters, savedMaster{id, m.name, append([]string{}, m.urls...), append([]string{}, m.edges...)})
		}
	}
	for _, l := range d.links {
		if s := &l.status; !s.Learned && s.Master != "" {
			file.Leads[s.Address] = s.Master
		}
	}
	d.mu.Unlock()
	return d.file.write(file)
}

// keep writes the file when it changes, until ctx ends. It is on a goroutine of
// its own: a disk that hangs must not keep the agent from learning.
func (d *membership) keep(ctx context.Context) {
	warned := false
	for ctx.Err() == nil {
		select {
		case <-d.dirty:
		case <-ctx.Done():
		}
		err := d.save()
		if err != nil && !warned {
			d.log.Warn("the known masters cannot be saved; a restart finds those that are configured", "error", err)
		}
		warned = err != nil
		pause(ctx, saveEvery)
		if err != nil {
			signal(d.dirty) // until it works
		}
	}
}
