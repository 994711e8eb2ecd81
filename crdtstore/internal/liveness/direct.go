package liveness

import "time"

// CountDirect counts the nodes that this master itself has heard within a time.
func (b *Board) CountDirect(now time.Time, within time.Duration) int {
	n := 0
	for i := range b.part {
		s := &b.part[i]
		s.mu.Lock()
		for _, l := range s.lives {
			for _, h := range l.observations {
				if h.Master == b.self && now.Sub(h.At) <= within {
					n++
				}
			}
		}
		s.mu.Unlock()
	}
	return n
}
