package explorer

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

const metricPrefix = "hero_explorer_"

// metrics are kept in a registry of the server's own, so that several servers
// can live in one process.
type metrics struct {
	registry *prometheus.Registry

	calls   *prometheus.CounterVec   // by method and code
	seconds *prometheus.HistogramVec // by method

	reports                               prometheus.Counter
	beatsNew, beatsOld, beatsAsk, beatsNo prometheus.Counter

	http    *prometheus.CounterVec // by path and status
	streams prometheus.Gauge
	dropped prometheus.Counter

	forwards *prometheus.CounterVec // by path and outcome
	conns    *prometheus.CounterVec // by listener
	closed   *prometheus.CounterVec // by listener and reason
}

func newMetrics(s *Server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricPrefix + name, Help: help}, labels)
	}
	m.calls = counters("rpc_requests_total", "JSON-RPC calls by method and error code; code 0 is success.", "method", "code")
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: metricPrefix + "rpc_duration_seconds", Help: "How long JSON-RPC calls took, by method.",
		Buckets: []float64{25e-6, 100e-6, 500e-6, 2.5e-3, 10e-3, 50e-3, 250e-3, 1, 5, 30},
	}, []string{"method"})
	m.http = counters("http_requests_total", "HTTP requests besides POST /rpc, by path and status.", "path", "status")
	m.forwards = counters("forwards_total", "Calls forwarded to nodes, by path and outcome; those that found none have no path.", "path", "outcome")
	m.conns = counters("connections_total", "Connections accepted, by listener.", "listener")
	m.closed = counters("connections_closed_total", "Connections closed to make room for others, by listener and by what there were too many of: from the address, or in total.", "listener", "reason")
	m.reports = prometheus.NewCounter(prometheus.CounterOpts{
		Name: metricPrefix + "reports_total", Help: "Reports of nodes that were taken.",
	})
	beats := counters("beats_total", "Heartbeats by result.", "result")
	m.beatsNew, m.beatsOld = beats.WithLabelValues("accepted"), beats.WithLabelValues("late")
	m.beatsAsk, m.beatsNo = beats.WithLabelValues("register"), beats.WithLabelValues("refused")
	m.streams = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: metricPrefix + "event_streams", Help: "Open streams of /events.",
	})
	m.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: metricPrefix + "event_streams_dropped_total", Help: "Streams of /events that ended because their reader was too slow.",
	})
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: metricPrefix + "build_info", Help: "Always 1; the labels say what runs.",
	}, []string{"version", "go_version"})
	info.WithLabelValues(s.cfg.Version, runtime.Version()).Set(1)
	m.registry.MustRegister(
		m.calls, m.seconds, m.http, m.forwards, m.conns, m.closed, m.reports, beats, m.streams, m.dropped, info,
		gridCollector{s},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

func (m *metrics) beat(r crdtstore.BeatResult, err error) {
	switch {
	case err != nil:
		m.beatsNo.Inc()
	case r.Register:
		m.beatsAsk.Inc()
	case r.Accepted:
		m.beatsNew.Inc()
	default:
		m.beatsOld.Inc()
	}
}

// forwarded counts what became of a call on a path.
func (m *metrics) forwarded(p path, outcome string) {
	m.forwards.WithLabelValues(p.kind, outcome).Inc()
}

// methodMetrics are the metrics of one method, looked up once.
type methodMetrics struct {
	calls   *prometheus.CounterVec
	ok      prometheus.Counter
	seconds prometheus.Observer
}

func (m *metrics) method(name string) methodMetrics {
	calls := m.calls.MustCurryWith(prometheus.Labels{"method": name})
	return methodMetrics{calls, calls.WithLabelValues("0"), m.seconds.WithLabelValues(name)}
}

func (m methodMetrics) done(took time.Duration) {
	m.ok.Inc()
	m.seconds.Observe(took.Seconds())
}

// failed counts an error by its code. A node may answer with any code, so those
// that are none of ours are counted together.
func (m methodMetrics) failed(code int, took time.Duration) {
	label := "node"
	if code <= -32001 && code >= -32010 || code <= -32600 && code >= -32700 {
		label = strconv.Itoa(code)
	}
	m.calls.WithLabelValues(label).Inc()
	m.seconds.Observe(took.Seconds())
}

// gridCollector reads the store when somebody asks.
type gridCollector struct{ s *Server }

// byMaster are the labels of a figure about one master: its id, and its name, which need
// not be unique.
var byMaster = []string{"master", "name"}

var (
	nodesDesc   = prometheus.NewDesc(metricPrefix+"nodes", "Nodes by status.", []string{"status"}, nil)
	drainDesc   = prometheus.NewDesc(metricPrefix+"nodes_drained", "Nodes that are drained.", nil, nil)
	vmsDesc     = prometheus.NewDesc(metricPrefix+"vms", "VMs as their nodes reported them.", nil, nil)
	mastDesc    = prometheus.NewDesc(metricPrefix+"masters", "Masters by status.", []string{"status"}, nil)
	syncDesc    = prometheus.NewDesc(metricPrefix+"in_sync", "1 while all reachable masters hold the same.", nil, nil)
	lagDesc     = prometheus.NewDesc(metricPrefix+"lag_seconds", "How long the worst reachable master has differed.", nil, nil)
	splitDesc   = prometheus.NewDesc(metricPrefix+"split_seconds", "Since when another master differs or cannot be reached, once that is a split.", byMaster, nil)
	apartDesc   = prometheus.NewDesc(metricPrefix+"split_nodes", "Nodes that differ from such a master as far as is known.", byMaster, nil)
	hearsDesc   = prometheus.NewDesc(metricPrefix+"master_hears_nodes", "Nodes that a master hears itself, as it says.", byMaster, nil)
	partialDesc = prometheus.NewDesc(metricPrefix+"master_partially_connected", "1 while a master hears less than half of the nodes that another one hears.", byMaster, nil)
	twiceDesc   = prometheus.NewDesc(metricPrefix+"master_identity_collision", "1 while two processes have the identity of a master.", byMaster, nil)
	hopDesc     = prometheus.NewDesc(metricPrefix+"master_direct", "1 while announcements travel in one hop between another master and this one.", byMaster, nil)
	gapsDesc    = prometheus.NewDesc(metricPrefix+"announcement_gaps_total", "How often announcements of other masters did not arrive, and were fetched.", nil, nil)
	anewDesc    = prometheus.NewDesc(metricPrefix+"mesh_rebuilt_total", "Connections to other masters that were made anew, for nothing arrived over them.", nil, nil)
	skewDesc    = prometheus.NewDesc(metricPrefix+"master_clock_skew_seconds", "How far the clock of another master is ahead.", byMaster, nil)
	settDesc    = prometheus.NewDesc(metricPrefix+"master_settings_differ", "How many settings of another master differ from this one's and should not; the method masters says which.", byMaster, nil)
	unmetDesc   = prometheus.NewDesc(metricPrefix+"peer_never_met", "1 for each configured peer that was never met, by the cause.", []string{"peer", "cause"}, nil)
	epochDesc   = prometheus.NewDesc(metricPrefix+"history_epoch", "Number of the epoch that is written to.", nil, nil)
	entryDesc   = prometheus.NewDesc(metricPrefix+"history_entries", "Writes in that epoch, by all masters.", nil, nil)
	oldDesc     = prometheus.NewDesc(metricPrefix+"history_old_epochs", "Earlier epochs that are not deleted yet.", nil, nil)
	diskDesc    = prometheus.NewDesc(metricPrefix+"history_bytes", "Bytes on disk, all epochs.", nil, nil)
	liveDesc    = prometheus.NewDesc(metricPrefix+"history_live_bytes", "Bytes of the records alone, encoded.", nil, nil)
	joinDesc    = prometheus.NewDesc(metricPrefix+"joining", "1 while this master is new and fetches the records of the others.", nil, nil)
	aimDesc     = prometheus.NewDesc(metricPrefix+"joining_nodes", "Nodes that another master has, while this one is joining.", nil, nil)
	tunDesc     = prometheus.NewDesc(metricPrefix+"tunnels", "Nodes whose agents keep a tunnel to this master.", nil, nil)
	edgeDesc    = prometheus.NewDesc(metricPrefix+"edge_connections", "Connections of agents to the edge address.", nil, nil)
	presDesc    = prometheus.NewDesc(metricPrefix+"preserving", "1 while a large part of the grid is silent and its nodes are suspect rather than offline.", nil, nil)
	eventDesc   = prometheus.NewDesc(metricPrefix+"events_total", "What happened, by what it is about and what it was; the method events lists it.", []string{"kind", "what"}, nil)
	upDesc      = prometheus.NewDesc(metricPrefix+"healthy", "1 while this master should be asked, as /health says.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (g gridCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodesDesc, drainDesc, vmsDesc, mastDesc, syncDesc, lagDesc, splitDesc, apartDesc, hearsDesc, partialDesc, twiceDesc, hopDesc, gapsDesc, anewDesc, skewDesc, settDesc, unmetDesc, epochDesc, entryDesc, oldDesc, diskDesc, liveDesc, joinDesc, aimDesc, tunDesc, edgeDesc, presDesc, eventDesc, upDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (g gridCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		for i := range labels { // names come from other masters
			labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	stats := g.s.store.Stats()
	gauge(nodesDesc, float64(stats.Nodes.Online), string(crdtstore.Online))
	gauge(nodesDesc, float64(stats.Nodes.Suspect), string(crdtstore.Suspect))
	gauge(nodesDesc, float64(stats.Nodes.Offline), string(crdtstore.Offline))
	gauge(drainDesc, float64(stats.Nodes.Drained))
	gauge(vmsDesc, float64(stats.VMs.Total))
	for status, n := range stats.Masters {
		gauge(mastDesc, float64(n), status)
	}
	gauge(syncDesc, oneIf(stats.Convergence.InSync))
	gauge(lagDesc, stats.Convergence.LagS)
	ch <- prometheus.MustNewConstMetric(gapsDesc, prometheus.CounterValue, float64(stats.Convergence.Gaps))
	ch <- prometheus.MustNewConstMetric(anewDesc, prometheus.CounterValue, float64(stats.Convergence.Rebuilt))
	for _, one := range stats.Convergence.Splits {
		gauge(splitDesc, one.LagS, one.Master, one.Name)
		gauge(apartDesc, float64(one.Nodes), one.Master, one.Name)
	}
	for _, m := range g.s.store.Masters() {
		if m.Status == crdtstore.MasterNeverMet {
			gauge(unmetDesc, 1, m.Name, string(m.Cause))
		}
		if m.Status != crdtstore.MasterSelf && m.Status != crdtstore.MasterAlive {
			continue // what it said last is out of date
		}
		gauge(hearsDesc, float64(m.Hears), m.ID, m.Name)
		gauge(partialDesc, oneIf(m.PartiallyConnected), m.ID, m.Name)
		gauge(hopDesc, oneIf(m.Direct), m.ID, m.Name)
		gauge(twiceDesc, oneIf(m.Cause == crdtstore.CauseCollision), m.ID, m.Name)
		gauge(skewDesc, m.ClockSkewS, m.ID, m.Name)
		gauge(settDesc, float64(len(m.SettingsDiffer)), m.ID, m.Name)
	}
	gauge(epochDesc, float64(stats.History.Epoch))
	gauge(entryDesc, float64(stats.History.Entries))
	gauge(oldDesc, float64(stats.History.Old))
	gauge(diskDesc, float64(stats.History.Bytes))
	gauge(liveDesc, float64(stats.History.Live))
	gauge(joinDesc, oneIf(stats.Joining != nil))
	if stats.Joining != nil {
		gauge(aimDesc, float64(stats.Joining.Of))
	}
	if g.s.edge != nil {
		gauge(tunDesc, float64(g.s.edge.host.Len()))
		gauge(edgeDesc, float64(g.s.edge.host.Conns()))
	}
	gauge(presDesc, oneIf(stats.Preservation != nil))
	for _, o := range g.s.store.EventCounts() {
		ch <- prometheus.MustNewConstMetric(eventDesc, prometheus.CounterValue, float64(o.Count), string(o.Kind), o.Type)
	}
	gauge(upDesc, oneIf(g.s.store.Health() == nil))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
