package sim

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// history is what both a model and the real thing are.
type history interface {
	replica.History
	Heads() []cid.Cid
}

// kept is a history with what it was handed, and what it announced.
type kept struct {
	history
	mu    sync.Mutex
	table map[string]record.State
	sent  map[uint64][]dag.Block
}

func (k *kept) apply(node string, s record.State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.table[node] = record.Join(k.table[node], s)
}

func (k *kept) announce(number uint64, blocks []dag.Block) {
	k.sent[number] = append(k.sent[number], blocks...)
}

// TestDiskIsLikeAHistory holds the model against the real one: whatever is put into
// two of each and carried between them, and after they are opened again, both hold
// the same.
func TestDiskIsLikeAHistory(t *testing.T) {
	for seed := range uint64(5) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		names := []string{"a", "b"}
		var real, model [2]*kept
		dirs := [2]string{t.TempDir(), t.TempDir()}
		openReal := func(i int) {
			k := &kept{table: map[string]record.State{}, sent: map[uint64][]dag.Block{}}
			if real[i] != nil {
				k.sent = real[i].sent
			}
			l, err := epoch.Open(t.Context(), epoch.Options{
				Dir: dirs[i], Master: names[i], NoSync: true, Logger: slog.New(slog.DiscardHandler), Apply: k.apply, Announce: k.announce,
			})
			if err != nil {
				t.Fatal(err)
			}
			k.history, real[i] = l, k
		}
		for i := range names {
			openReal(i)
			d := newDisk(names[i], rnd, time.Now)
			model[i] = &kept{history: d, table: map[string]record.State{}, sent: map[uint64][]dag.Block{}}
			d.apply, d.announce = model[i].apply, model[i].announce
			d.open()
		}
		var told [2]map[string]record.State // what each master's table holds, as a store has it
		for i := range told {
			told[i] = map[string]record.State{}
		}
		for step := range 80 {
			i := rnd.IntN(2)
			o := 1 - i
			both := func(what string, do func(k *kept, other *kept) error) {
				t.Helper()
				a, b := do(real[i], real[o]), do(model[i], model[o])
				if (a == nil) != (b == nil) {
					t.Fatalf("seed %d, step %d, %s: the real one says %v, the model %v", seed, step, what, a, b)
				}
			}
			switch rnd.IntN(12) {
			default:
				var writes []epoch.Write
				for n := range 1 + rnd.IntN(3) {
					node := fmt.Sprint("n", (step+n)%5)
					st := record.Join(told[i][node], record.State{LastSeen: rnd.Int64N(1000)})
					told[i][node] = st
					writes = append(writes, epoch.Write{Node: node, State: st})
				}
				both("put", func(k, _ *kept) error { return k.Put(t.Context(), writes) })
			case 0, 1, 2:
				// The blocks of the two worlds differ, for names of writers do; their
				// order is the same.
				n := len(real[o].sent[real[o].Number()])
				if m := len(model[o].sent[model[o].Number()]); n != m {
					t.Fatalf("seed %d: %d blocks were announced, the model says %d", seed, n, m)
				}
				from := rnd.IntN(n/2 + 1)
				both("deliver", func(k, other *kept) error {
					number := other.Number()
					return k.Deliver(t.Context(), number, other.sent[number][min(from, n):])
				})
				for node, st := range model[i].table {
					told[i][node] = record.Join(told[i][node], st)
				}
			case 3:
				number, cutoff := real[i].Number()+uint64(rnd.IntN(2)), rnd.Int64N(100)
				both("adopt", func(k, _ *kept) error { return k.Adopt(t.Context(), number, cutoff) })
			case 4:
				if err := real[i].history.(*epoch.Log).Close(); err != nil {
					t.Fatal(err)
				}
				openReal(i)
				d := model[i].history.(*disk)
				model[i].table = map[string]record.State{}
				d.open()
			case 5:
				a, err := real[i].Missing(t.Context(), maps.All(told[i]))
				b, _ := model[i].Missing(t.Context(), maps.All(told[i]))
				slices.Sort(b)
				if slices.Sort(a); err != nil || !slices.Equal(a, b) {
					t.Fatalf("seed %d, step %d: the real one misses %q, %v, the model %q", seed, step, a, err, b)
				}
				if len(a) == 0 {
					both("retire", func(k, _ *kept) error { return k.Retire(t.Context()) })
				}
			}
			a, b := real[i], model[i]
			if a.Number() != b.Number() || a.Cutoff() != b.Cutoff() || len(a.Heads()) != len(b.Heads()) ||
				a.Stats().Written != b.Stats().Written || a.Stats().Old != b.Stats().Old {
				t.Fatalf("seed %d, step %d: epoch %d, cutoff %d, %d heads, %+v; the model has %d, %d, %d, %+v", seed, step,
					a.Number(), a.Cutoff(), len(a.Heads()), a.Stats(), b.Number(), b.Cutoff(), len(b.Heads()), b.Stats())
			}
			for _, node := range slices.Sorted(maps.Keys(b.table)) {
				if !a.table[node].Equal(b.table[node]) {
					t.Fatalf("seed %d, step %d: %s is %+v, the model says %+v", seed, step, node, a.table[node], b.table[node])
				}
			}
			if len(a.table) != len(b.table) {
				t.Fatalf("seed %d, step %d: %d nodes, the model has %d", seed, step, len(a.table), len(b.table))
			}
		}
		for i := range real {
			if err := real[i].history.(*epoch.Log).Close(); err != nil && !strings.Contains(err.Error(), "closed") {
				t.Error(err)
			}
		}
	}
}
