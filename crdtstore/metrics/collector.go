package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

// Prefix begins the name of every metric.
const Prefix = "hero_explorer_"

// Source is what is measured: a [crdtstore.Store]. It is asked from several goroutines.
type Source interface {
	Stats() crdtstore.Stats
	Masters() []crdtstore.Master
	EventCounts() []crdtstore.EventCount
	Health() error
}

// NewCollector returns a collector that asks a store whenever it is gathered.
func NewCollector(store Source) prometheus.Collector { return collector{store} }

type collector struct{ store Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(Prefix+name, help, labels, nil)
}

// figure is a metric that is one number about one thing.
type figure[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(T) float64
}

func gauge[T any](name, help string, of func(T) float64, labels ...string) figure[T] {
	return figure[T]{desc(name, help, labels...), prometheus.GaugeValue, of}
}

func counter[T any](name, help string, of func(T) float64) figure[T] {
	return figure[T]{desc(name, help), prometheus.CounterValue, of}
}

type (
	master = crdtstore.Master
	split  = stats.Split
)

// ofStore are figures about the store as a whole.
var ofStore = []figure[stats.Stats]{
	gauge("nodes_drained", "Nodes that are drained.", func(s stats.Stats) float64 { return float64(s.Nodes.Drained) }),
	gauge("vms", "VMs as their nodes reported them.", func(s stats.Stats) float64 { return float64(s.VMs.Total) }),
	gauge("in_sync", "1 while all reachable masters hold the same.", func(s stats.Stats) float64 { return oneIf(s.Convergence.InSync) }),
	gauge("lag_seconds", "How long the worst reachable master has differed.", func(s stats.Stats) float64 { return s.Convergence.LagS }),
	counter("announcement_gaps_total", "How often announcements of other masters did not arrive, and were fetched.", func(s stats.Stats) float64 { return float64(s.Convergence.Gaps) }),
	counter("mesh_rebuilt_total", "Connections to other masters that were made anew, for nothing arrived over them.", func(s stats.Stats) float64 { return float64(s.Convergence.Rebuilt) }),
	gauge("history_epoch", "Number of the epoch that is written to.", func(s stats.Stats) float64 { return float64(s.History.Epoch) }),
	gauge("history_entries", "Writes in that epoch, by all masters.", func(s stats.Stats) float64 { return float64(s.History.Entries) }),
	gauge("history_old_epochs", "Earlier epochs that are not deleted yet.", func(s stats.Stats) float64 { return float64(s.History.Old) }),
	gauge("history_bytes", "Bytes on disk, all epochs.", func(s stats.Stats) float64 { return float64(s.History.Bytes) }),
	gauge("history_live_bytes", "Bytes of the records alone, encoded.", func(s stats.Stats) float64 { return float64(s.History.Live) }),
	gauge("joining", "1 while this master is new and fetches the records of the others.", func(s stats.Stats) float64 { return oneIf(s.Joining != nil) }),
	gauge("preserving", "1 while a large part of the grid is silent and its nodes are suspect rather than offline.", func(s stats.Stats) float64 { return oneIf(s.Preservation != nil) }),
}

// byMaster are the labels of a figure about one master: its id, and its name, which need
// not be unique.
var byMaster = []string{"master", "name"}

// ofMaster are figures about a master that is alive.
var ofMaster = []figure[master]{
	gauge("master_hears_nodes", "Nodes that a master hears itself, as it says.", func(m master) float64 { return float64(m.Hears) }, byMaster...),
	gauge("master_partially_connected", "1 while a master hears less than half of the nodes that another one hears.", func(m master) float64 { return oneIf(m.PartiallyConnected) }, byMaster...),
	gauge("master_direct", "1 while announcements travel in one hop between another master and this one.", func(m master) float64 { return oneIf(m.Direct) }, byMaster...),
	gauge("master_identity_collision", "1 while two processes have the identity of a master.", func(m master) float64 { return oneIf(m.Cause == crdtstore.CauseCollision) }, byMaster...),
	gauge("master_clock_skew_seconds", "How far the clock of another master is ahead.", func(m master) float64 { return m.ClockSkewS }, byMaster...),
	gauge("master_settings_differ", "How many settings of another master differ from this one's and should not; the method masters says which.", func(m master) float64 { return float64(len(m.SettingsDiffer)) }, byMaster...),
}

// ofSplit are figures about a master from which this one is split.
var ofSplit = []figure[split]{
	gauge("split_seconds", "Since when another master differs or cannot be reached, once that is a split.", func(s split) float64 { return s.LagS }, byMaster...),
	gauge("split_nodes", "Nodes that differ from such a master as far as is known.", func(s split) float64 { return float64(s.Nodes) }, byMaster...),
}

var (
	nodes    = desc("nodes", "Nodes by status.", "status")
	masters  = desc("masters", "Masters by status.", "status")
	joining  = desc("joining_nodes", "Nodes that another master has, while this one is joining.")
	neverMet = desc("peer_never_met", "1 for each configured peer that was never met, by the cause.", "peer", "cause")
	events   = desc("events_total", "What happened, by what it is about and what it was; the method events lists it.", "kind", "what")
	healthy  = desc("healthy", "1 while this master should be asked, as /health says.")
)

// Describe implements [prometheus.Collector].
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodes, masters, joining, neverMet, events, healthy} {
		ch <- d
	}
	describe(ch, ofStore)
	describe(ch, ofMaster)
	describe(ch, ofSplit)
}

func describe[T any](ch chan<- *prometheus.Desc, figures []figure[T]) {
	for _, f := range figures {
		ch <- f.desc
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	is := func(d *prometheus.Desc, v float64, labels ...string) {
		send(ch, d, prometheus.GaugeValue, v, labels...)
	}
	s := c.store.Stats()
	is(nodes, float64(s.Nodes.Online), string(crdtstore.Online))
	is(nodes, float64(s.Nodes.Suspect), string(crdtstore.Suspect))
	is(nodes, float64(s.Nodes.Offline), string(crdtstore.Offline))
	for status, n := range s.Masters {
		is(masters, float64(n), status)
	}
	if s.Joining != nil {
		is(joining, float64(s.Joining.Of))
	}
	collect(ch, ofStore, s)
	for _, one := range s.Convergence.Splits {
		collect(ch, ofSplit, one, one.Master, one.Name)
	}
	for _, m := range c.store.Masters() {
		switch m.Status {
		case crdtstore.MasterNeverMet:
			is(neverMet, 1, m.Name, string(m.Cause))
		case crdtstore.MasterSelf, crdtstore.MasterAlive: // what others said last is out of date
			collect(ch, ofMaster, m, m.ID, m.Name)
		}
	}
	for _, e := range c.store.EventCounts() {
		send(ch, events, prometheus.CounterValue, float64(e.Count), string(e.Kind), e.Type)
	}
	is(healthy, oneIf(c.store.Health() == nil))
}

func collect[T any](ch chan<- prometheus.Metric, figures []figure[T], of T, labels ...string) {
	for _, f := range figures {
		send(ch, f.desc, f.kind, f.of(of), labels...)
	}
}

func send(ch chan<- prometheus.Metric, d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
	for i := range labels { // names come from other masters
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
