package epoch

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/faultdisk"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const memDir = "/epochs"

// onMemory starts a master on a disk in memory, of which power cuts can be had.
func onMemory(t testing.TB, id string, disk *vfs.MemFS, before func(op, path string)) *master {
	t.Helper()
	m, err := tryStart(t, Options{Dir: memDir, Master: id, FS: faultdisk.Hook(disk, before)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// cut is what a power cut leaves of a disk: what was synced, and a share of the rest.
func cut(disk *vfs.MemFS, percent int, rnd *rand.Rand) *vfs.MemFS {
	return disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rnd})
}

// survives opens what a power cut has left and returns what is on it.
func survives(t testing.TB, id string, disk *vfs.MemFS) map[string]record.State {
	t.Helper()
	m := onMemory(t, id, disk, func(string, string) {})
	if err := m.Close(); err != nil { // many are opened
		t.Error(err)
	}
	return m.table
}

// inNewEpoch returns a master that has what it knows in epoch 1, synced, and in epoch 2 from
// another master, not synced.
func inNewEpoch(t *testing.T, disk *vfs.MemFS, before func(op, path string)) *master {
	m, other := onMemory(t, "m1", disk, before), start(t, "m2", t.TempDir())
	m.write("n", seen(7))
	for _, x := range []*master{m, other} {
		x.number.Store(2)
		if err := x.Adopt(t.Context(), 2, 0); err != nil {
			t.Fatal(err)
		}
	}
	other.write("n", seen(7))
	if err := m.take(other.all()...); err != nil {
		t.Fatal(err)
	}
	return m
}

// What Missing counts on is on stable storage, whoever syncs before the old epoch goes.
func TestMissingCountsOnWhatIsSynced(t *testing.T) {
	disk := vfs.NewCrashableMem()
	m := inNewEpoch(t, disk, func(string, string) {})
	if missing := m.missing(); len(missing) > 0 {
		t.Fatal("missing:", missing)
	}
	left := cut(disk, 0, nil)
	if err := left.RemoveAll(epochPath(memDir, 1)); err != nil {
		t.Fatal(err)
	}
	if got := survives(t, "m1", left); got["n"].LastSeen != 7 {
		t.Errorf("after a power cut the new epoch holds %v, of which nothing was missing", got)
	}
}

// The new epoch is on stable storage before the first old directory goes, whoever looked
// before, and a directory has lost its name for good before a file of it goes.
func TestRetireSyncsBeforeItDeletes(t *testing.T) {
	disk := vfs.NewCrashableMem()
	var renamed, deleted *vfs.MemFS
	m := inNewEpoch(t, disk, func(op, path string) {
		switch {
		case op == "rename" && path == epochPath(memDir, 1):
			renamed = cut(disk, 0, nil)
		case op == "removeall" && path == epochPath(memDir, 1)+retired:
			deleted = cut(disk, 0, nil)
		}
	})
	if err := m.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if renamed == nil || deleted == nil {
		t.Fatal("nothing was deleted")
	}
	if err := renamed.RemoveAll(epochPath(memDir, 1)); err != nil {
		t.Fatal(err)
	}
	if all, err := numbers(deleted, memDir); err != nil || !slices.Equal(all, []uint64{2}) {
		t.Errorf("while files of it are deleted a power cut brings an old epoch back: %d, %v", all, err)
	}
	for when, left := range map[string]*vfs.MemFS{"when it begins": renamed, "with files deleted": deleted, "afterwards": cut(disk, 0, nil)} {
		if got := survives(t, "m1", left); got["n"].LastSeen != 7 {
			t.Errorf("after a power cut %s the new epoch holds %v", when, got)
		}
	}
}

// powerCuts takes what power cuts at random moments would leave of the disks of some
// masters, all at once, and what each had acknowledged by then.
type powerCuts struct {
	disks []*vfs.MemFS

	mu    sync.Mutex
	rnd   *rand.Rand
	acked []map[string]record.State
	taken []powerCut
}

type powerCut struct {
	at    string
	left  []*vfs.MemFS
	acked []map[string]record.State
}

func (p *powerCuts) before(op, path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	odds := 80
	if !strings.HasSuffix(path, ".log") { // what is not done all the time
		odds = 16
	}
	if p.rnd.IntN(odds) > 0 {
		return
	}
	c := powerCut{at: op + " " + path}
	percent := []int{0, 0, 50, 100}[p.rnd.IntN(4)]
	for i, d := range p.disks {
		c.left = append(c.left, cut(d, percent, p.rnd))
		c.acked = append(c.acked, maps.Clone(p.acked[i]))
	}
	p.taken = append(p.taken, c)
}

func (p *powerCuts) acks(i int, node string, s record.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[i][node] = record.Join(p.acked[i][node], s)
}

// TestPowerCuts lets masters write, hear of each other, turn their epochs over and delete
// old ones, and cuts the power of all at any step that any of them makes at its disk.
// What a master has acknowledged is on its disk afterwards, whatever it was about to do.
func TestPowerCuts(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 11))
			p := &powerCuts{rnd: rand.New(rand.NewPCG(seed, 12))}
			var all []*master
			for range 2 {
				p.disks, p.acked = append(p.disks, vfs.NewCrashableMem()), append(p.acked, map[string]record.State{})
			}
			for i, d := range p.disks {
				all = append(all, onMemory(t, fmt.Sprint("m", i), d, p.before))
			}
			put := func(i int, node string, news record.State) {
				all[i].write(node, news)
				p.acks(i, node, all[i].table[node])
			}
			retired := 0
			for range 70 {
				i := rnd.IntN(len(all))
				m, other := all[i], all[1-i]
				switch rnd.IntN(8) {
				case 0: // one leaves for a new epoch
					n := max(m.Number(), other.Number()) + uint64(rnd.IntN(2))
					m.number.Store(max(n, m.Number()))
					if err := m.Adopt(t.Context(), n, 0); err != nil {
						t.Fatal(err)
					}
				case 1, 2: // what others say is acknowledged once it is synced
					if m.Number() == other.Number() {
						if err := m.take(other.all()...); err != nil {
							t.Fatal(err)
						}
					}
					known := maps.Clone(m.table)
					if err := m.Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
					for node, s := range known {
						p.acks(i, node, s)
					}
				case 3, 4: // what the new epoch lacks is asserted, and the old ones go
					missing := m.missing()
					for _, node := range missing {
						put(i, node, record.State{})
					}
					if len(missing) == 0 {
						if err := m.Retire(t.Context()); err != nil {
							t.Fatal(err)
						}
						retired++
					}
				default:
					put(i, fmt.Sprintf("n%d", rnd.IntN(6)), seen(rnd.Int64N(1e6)))
				}
			}
			for _, c := range p.taken {
				for i, left := range c.left {
					got := survives(t, fmt.Sprint("m", i), left)
					for node, s := range c.acked[i] {
						if !got[node].Dominates(s) {
							t.Errorf("power cut at %q: m%d has acknowledged %s as %+v and holds %+v", c.at, i, node, s, got[node])
						}
					}
				}
			}
			t.Logf("%d power cuts, %d times old epochs were deleted", len(p.taken), retired)
		})
	}
}
