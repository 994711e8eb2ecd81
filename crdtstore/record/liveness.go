package record

import (
	"math"
	"time"
)

// Status is whether a node lives. It is computed when it is read and never
// stored.
type Status string

// The statuses of a node. Suspect means that the masters lack the evidence to
// say either; Reason in [Node] tells why.
const (
	Online  Status = "online"
	Suspect Status = "suspect"
	Offline Status = "offline"
)

// Observer is one master's observation of a node.
type Observer struct {
	Master string `json:"master"`
	// AgeS is how many seconds ago that master heard the node, by its own
	// monotonic clock, counted on by ours; no absolute time crosses the wire.
	AgeS float64 `json:"age_s"`
	// Reachable tells whether that master itself is heard.
	Reachable bool `json:"reachable"`
	// OfflineAfter is for how long that master lets a node be silent, as it says; 0: it
	// does not say, and the reader's own limit holds.
	OfflineAfter time.Duration `json:"-"`
}

// Age returns AgeS as a duration. What does not fit into one, or is no number,
// counts as ages ago and not, by overflow, as just now.
func (w Observer) Age() time.Duration {
	ns := w.AgeS * float64(time.Second)
	if !(ns < math.MaxInt64) {
		return math.MaxInt64
	}
	return time.Duration(max(ns, 0))
}

// Listening is by what a master judges the silence of nodes.
type Listening struct {
	For          time.Duration // since this master started
	OfflineAfter time.Duration // this master's own, for observers that do not say theirs
	// Preserving: so large a part of the grid went silent together that a fault of the
	// masters or of the network is likelier than the death of all these nodes (see
	// [Preserve]); Preserved is for how long that is so.
	Preserving bool
	Preserved  time.Duration
}

// limit is for how long a node may be silent to a master: by that master's own limit,
// whoever reads. So masters whose limits differ compute the same.
func (l Listening) limit(w *Observer) time.Duration {
	if w.OfflineAfter > 0 {
		return w.OfflineAfter
	}
	return l.OfflineAfter
}

// Liveness computes the status of a node from who heard it.
//
//   - online: some reachable master heard it within that master's OfflineAfter;
//   - suspect: the only masters that did are themselves gone (until twice their
//     OfflineAfter), or nobody has yet but this master has only just begun to
//     listen, or it fell silent together with a large part of the grid;
//   - offline: otherwise.
func Liveness(observers []Observer, l Listening) (Status, string) {
	var lost *Observer
	for i := range observers {
		w := &observers[i]
		switch {
		case w.Reachable && w.Age() <= l.limit(w):
			return Online, ""
		case !w.Reachable && w.Age() <= 2*l.limit(w) && (lost == nil || w.AgeS < lost.AgeS):
			lost = w
		}
	}
	if lost != nil {
		return Suspect, "the master that heard it last is gone: " + lost.Master
	}
	if l.For < l.OfflineAfter && len(observers) == 0 {
		return Suspect, "not heard since this master started"
	}
	if l.preserves(observers) {
		return Suspect, "a large part of the grid fell silent with it"
	}
	return Offline, ""
}

// preserves reports whether a node that is silent is one of those that fell silent
// together: what was silent before has nothing to do with it. Both sides grow with
// time, so it stays as it is.
func (l Listening) preserves(observers []Observer) bool {
	if !l.Preserving {
		return false
	}
	for i := range observers {
		if w := &observers[i]; w.Age() <= l.limit(w)+l.Preserved {
			return true
		}
	}
	return len(observers) == 0 && l.For <= l.OfflineAfter+l.Preserved // not heard in this run
}

// Preserve decides whether the silence of nodes is to be doubted. late are the nodes
// that should have been heard again by now (half of offline-after is over), of those
// that were alive a moment ago; on is what was decided before.
//
// It takes three nodes to speak of a grid. Of fewer than ten more than half have to be
// late, else more than a quarter; it ends when a third, or an eighth, or less is. One
// dead node is never doubted, and the doubt does not go on for the few that are left
// dead when the rest has come back. Agents beat several times in offline-after, so half
// of all heartbeats being lost makes more than a third of the nodes late.
func Preserve(late, alive int, on bool) bool {
	small := alive < 10
	switch {
	case alive < 3 || late < 2:
		return false
	case on && small:
		return 3*late > alive
	case on:
		return 8*late > alive
	case small:
		return 2*late > alive
	}
	return 4*late > alive
}

// LivenessHolds returns for how long the status that [Liveness] computes stays as
// it is when nobody is heard, no master comes or goes and nothing changes about
// preservation, the last moment included; false: for ever.
func LivenessHolds(observers []Observer, l Listening) (time.Duration, bool) {
	status, _ := Liveness(observers, l)
	if status == Offline || status == Suspect && l.preserves(observers) {
		return 0, false
	}
	if len(observers) == 0 {
		return l.OfflineAfter - l.For - 1, true
	}
	var holds time.Duration
	for i := range observers {
		w := &observers[i]
		switch {
		case w.Reachable:
			holds = max(holds, l.limit(w)-w.Age())
		case status == Suspect:
			holds = max(holds, 2*l.limit(w)-w.Age())
		}
	}
	return holds, true
}
