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

// Witness is what one master hears of a node.
type Witness struct {
	Master string `json:"master"`
	// AgeS is how many seconds ago that master heard the node, by its own
	// monotonic clock, counted on by ours; no absolute time crosses the wire.
	AgeS float64 `json:"age_s"`
	// Reachable tells whether that master itself is heard.
	Reachable bool `json:"reachable"`
}

// Age returns AgeS as a duration. What does not fit into one, or is no number,
// counts as ages ago and not, by overflow, as just now.
func (w Witness) Age() time.Duration {
	ns := w.AgeS * float64(time.Second)
	if !(ns < math.MaxInt64) {
		return math.MaxInt64
	}
	return time.Duration(max(ns, 0))
}

// Liveness computes the status of a node from who heard it, and how long this
// master has been listening.
//
//   - online: some reachable master heard it within offlineAfter;
//   - suspect: the only masters that did are themselves gone (until twice
//     offlineAfter), or nobody has yet but this master has only just begun to
//     listen;
//   - offline: otherwise.
func Liveness(witnesses []Witness, listening, offlineAfter time.Duration) (Status, string) {
	var lost *Witness
	for i := range witnesses {
		w := &witnesses[i]
		switch {
		case w.Reachable && w.Age() <= offlineAfter:
			return Online, ""
		case !w.Reachable && w.Age() <= 2*offlineAfter && (lost == nil || w.AgeS < lost.AgeS):
			lost = w
		}
	}
	if lost != nil {
		return Suspect, "the master that heard it last is gone: " + lost.Master
	}
	if listening < offlineAfter && len(witnesses) == 0 {
		return Suspect, "not heard since this master started"
	}
	return Offline, ""
}

// LivenessHolds returns for how long the status that [Liveness] computes stays as
// it is when nobody is heard and no master comes or goes, the last moment
// included; false: for ever.
func LivenessHolds(witnesses []Witness, listening, offlineAfter time.Duration) (time.Duration, bool) {
	status, _ := Liveness(witnesses, listening, offlineAfter)
	if status == Offline {
		return 0, false
	}
	if len(witnesses) == 0 {
		return offlineAfter - listening - 1, true
	}
	var holds time.Duration
	for _, w := range witnesses {
		switch {
		case w.Reachable:
			holds = max(holds, offlineAfter-w.Age())
		case status == Suspect:
			holds = max(holds, 2*offlineAfter-w.Age())
		}
	}
	return holds, true
}
