package workeragent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
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

// load reads the file. What cannot be used is a warning: the masters say it all
// again. Addresses on this machine are taken if the configured ones are.
func (d *membership) load(fromHere bool) {
	text, err := readAtMost(d.path, 2*maxList)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var file savedMasters
	if err == nil {
		// The version first: of a newer file nothing else may be taken for granted.
		var head struct {
			Version int `json:"version"`
		}
		if err = json.Unmarshal(text, &head); err == nil && head.Version > mastersVersion {
			d.log.Warn("the file of known masters was written by a newer version; it is left alone and not used", "path", d.path)
			d.path = ""
			return
		}
		if err == nil && head.Version != mastersVersion {
			err = fmt.Errorf("its version is %d", head.Version)
		}
	}
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		d.log.Warn("the file of known masters cannot be read and will be made anew", "path", d.path, "error", err)
		return
	}
	for _, m := range file.Masters {
		if validID(m.ID) {
			d.take(memberInfo{ID: m.ID, Name: m.Name, RPCURLs: m.RPCURLs, EdgeAddrs: m.EdgeAddrs}, fromHere, time.Now())
		}
	}
	for _, p := range d.endpoints {
		if id := file.Leads[p.String()]; validID(id) {
			d.leads[p.String()] = id
		}
		if id := file.Pins[p.String()]; p.edge != "" && validID(id) {
			d.pins[p.String()] = id
		}
	}
	d.saved = text
}

func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = errors.New("it is too long")
	}
	return text, err
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

// save writes the file if it would say something else than it does.
func (d *membership) save() error {
	d.mu.Lock()
	file := savedMasters{Version: mastersVersion, Masters: []savedMaster{}, Leads: d.leads, Pins: d.pins}
	for _, id := range slices.Sorted(maps.Keys(d.known)) {
		if m := d.known[id]; !m.left {
			file.Masters = append(file.Masters, savedMaster{id, m.name, append([]string{}, m.urls...), append([]string{}, m.edges...)})
		}
	}
	text, err := json.MarshalIndent(file, "", "  ")
	text = append(text, '\n')
	same := d.path == "" || bytes.Equal(text, d.saved) || d.saved == nil && len(file.Masters) == 0
	d.mu.Unlock()
	if err != nil || same {
		return err
	}
	if err := atomicfile.Write(d.path, text); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saved = text
	return nil
}
