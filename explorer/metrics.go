package explorer

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	storemetrics "forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/metrics"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
)

const metricPrefix = storemetrics.Prefix

// metrics are kept in a registry of the server's own, so that several servers
// can live in one process.
type metrics struct {
	registry *prometheus.Registry
	process  *prometheus.Registry // of Go and of the process

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
	m := &metrics{registry: prometheus.NewRegistry(), process: prometheus.NewRegistry()}
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
		m.calls, m.seconds, m.http, m.forwards, m.conns, m.closed, m.reports, beats, m.streams, m.dropped, info)
	m.process.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// measureEdge adds what is to be said of tunnels.
func (m *metrics) measureEdge(host *tunnel.Host) {
	gauge := func(name, help string, of func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metricPrefix + name, Help: help}, func() float64 { return float64(of()) })
	}
	m.registry.MustRegister(
		gauge("tunnels", "Nodes whose agents keep a tunnel to this master.", host.Len),
		gauge("edge_connections", "Connections of agents to the edge address.", host.Conns),
	)
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, m.process}, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
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
