// Package metrics makes Prometheus metrics of what a store says of itself: nodes, VMs and
// masters, whether the masters agree, and the history on disk.
//
//	registry.MustRegister(metrics.NewCollector(store))
//
// Their names begin with hero_explorer_. A program with several stores registers each by
// way of [prometheus.WrapRegistererWith], with a label that tells them apart. The store is
// asked when somebody gathers, and not in between; it answers from memory, also after
// Close.
package metrics
