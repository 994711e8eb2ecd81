package membership

import (
	"fmt"
	"time"
)

// EventClock is that the clock of a master has come to be far from this master's, or is
// right again.
const EventClock = "clock"

// clocks returns the clocks that go wrong or are right again, each once.
func (t *Table) clocks(now time.Time) (out []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.sorted() {
		skew := p.Skew.Abs()
		switch {
		case p.statusAt(now) != Alive:
		case skew > maxSkew && !p.skewed:
			p.skewed = true
			where := "ahead of"
			if p.Skew < 0 {
				where = "behind"
			}
			out = append(out, Event{Type: EventClock, Master: p.ID, Text: fmt.Sprintf("the clock of %s is %s %s this master's", p.Name, skew.Round(time.Second), where)})
		case skew < maxSkew/2 && p.skewed:
			p.skewed = false
			out = append(out, Event{Type: EventClock, Master: p.ID, Text: fmt.Sprintf("the clock of %s and this master's agree again", p.Name)})
		}
	}
	return out
}
