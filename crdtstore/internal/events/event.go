package events

import "time"

// Event is something that happened in the grid, as this master saw it. The fields are
// documented at crdtstore.Event.
type Event struct {
	ID     uint64
	At     time.Time
	Kind   Kind
	Type   string
	NodeID string
	VM     string
	Master string
	By     string
	More   int
	Text   string
}

// Kind is what an event is about.
type Kind string

// The kinds of events.
const (
	KindNode     Kind = "node"
	KindVM       Kind = "vm"
	KindMaster   Kind = "master"
	KindOperator Kind = "operator"
	KindGrid     Kind = "grid"
)

// The types of the events that this package makes of what it is fed with. Others are
// whatever is passed to [Log.Add].
const (
	TypeNew        = "new"
	TypeBack       = "back"
	TypeOnline     = "online"
	TypeOffline    = "offline"
	TypeExpired    = "expired"
	TypeChanged    = "changed"
	TypeGone       = "gone"
	TypeJoined     = "joined"
	TypeSuspect    = "suspect"
	TypeDown       = "down"
	TypeLeft       = "left"
	TypeDrained    = "drained"
	TypeUndrained  = "undrained"
	TypeLabelled   = "labelled"
	TypeUnlabelled = "unlabelled"
	TypeRemoved    = "removed"
)
