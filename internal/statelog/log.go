package statelog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// every is how often it is repeated that a state lasts.
	every = time.Hour
	// perMinute bounds the lines about one key in a minute: a state that comes and goes
	// is told by its first changes.
	perMinute = 3
	// maxKeys bounds the keys that are remembered.
	maxKeys = 1024
)

// Log writes states to a logger. Its methods may be called concurrently.
type Log struct {
	to *slog.Logger

	mu   sync.Mutex // guards what follows
	keys map[string]*entry
}

// entry is what was last logged under one key.
type entry struct {
	state  string
	at     time.Time
	minute time.Time // when the minute began in which lines are counted
	lines  int
}

// New makes a Log.
func New(to *slog.Logger) *Log { return &Log{to: to, keys: map[string]*entry{}} }

// State notes in which state the thing of a key is, and logs msg and args where the state
// differs from the one that was logged last, or was logged an hour ago. Nothing in key or
// state may vary while the state is the same: no ports of connections, no random ids, no
// texts of others.
func (l *Log) State(level slog.Level, key, state, msg string, args ...any) {
	if l.due(key, state, time.Now()) {
		l.to.Log(context.Background(), level, msg, args...)
	}
}

// Ended forgets the state of a key: it is logged when it begins again, within the bound
// on lines in a minute.
func (l *Log) Ended(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.keys[key]; e != nil {
		e.state = ""
	}
}

func (l *Log) due(key, state string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.keys[key]
	if e == nil {
		if len(l.keys) >= maxKeys {
			l.forgetOldest()
		}
		e = &entry{minute: now}
		l.keys[key] = e
	}
	if now.Sub(e.minute) >= time.Minute {
		e.minute, e.lines = now, 0
	}
	if e.lines >= perMinute || e.state == state && now.Sub(e.at) < every {
		return false
	}
	e.state, e.at = state, now
	e.lines++
	return true
}

// forgetOldest makes room. The caller holds mu.
func (l *Log) forgetOldest() {
	var oldest string
	for key, e := range l.keys {
		if o := l.keys[oldest]; o == nil || e.at.Before(o.at) {
			oldest = key
		}
	}
	delete(l.keys, oldest)
}
