package cluster

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const other = peer.ID("other")

func TestGapsInAnnouncements(t *testing.T) {
	now := time.Now()
	p := newPlane()
	later := func(d time.Duration) time.Time { now = now.Add(d); return now }
	if p.checkCount(now, other, "1", 7) {
		t.Error("what was before this master came is missing")
	}
	if p.announced(now, other, "1", 8) || p.announced(now, other, "1", 9) || p.announced(now, other, "1", 8) {
		t.Error("announcements in order have a gap")
	}
	if !p.announced(now, other, "1", 11) {
		t.Error("one that is missing before another is not seen")
	}
	// A pulse may overtake the announcement that it tells of.
	if p.checkCount(now, other, "1", 12) || p.checkCount(later(time.Second), other, "1", 12) || p.announced(now, other, "1", 12) {
		t.Error("an announcement that is late is missing")
	}
	if p.checkCount(later(time.Second), other, "1", 13) {
		t.Error("an announcement is missing at once")
	}
	if !p.checkCount(later(2*time.Second), other, "1", 13) {
		t.Error("an announcement that never arrives is not missing")
	}
	if p.checkCount(later(2*time.Second), other, "1", 13) || p.announced(now, other, "2", 1) || p.checkCount(now, other, "2", 1) {
		t.Error("what was fetched, or belongs to an earlier run, is missing once more")
	}
	if p.checkCount(now, other, "", 99) || p.announced(now, other, "", 99) {
		t.Error("a master that does not count has gaps")
	}
	if gaps, _ := p.counts(); gaps != 2 {
		t.Errorf("%d gaps, want 2", gaps)
	}
}

func TestWhenTheConnectionIsMadeAnew(t *testing.T) {
	began := time.Now()
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	all := []peer.ID{other}
	p := newPlane()
	broken := func(s float64) bool { return len(p.broken(at(s), all)) > 0 }
	if broken(0) {
		t.Error("a master that was never met is broken")
	}
	p.met(at(0), other)
	if broken(3) {
		t.Error("a master that was just met is broken")
	}
	p.hop(at(3), other, true)
	if broken(6) || !p.direct(at(6), other) {
		t.Error("a master that is heard is broken")
	}
	if !broken(8) || p.direct(at(8), other) {
		t.Error("a master that is not heard is not broken")
	}
	// It does not help, so it is tried more and more rarely.
	tries, s := 0, 8.0
	for ; s < 608; s++ {
		p.met(at(s), other)
		for range 10 {
			s++
			if broken(s) {
				tries++
				break
			}
		}
	}
	if tries < 8 || tries > 20 {
		t.Errorf("%d attempts in ten minutes", tries)
	}
	p.met(at(s), other)
	p.hop(at(s), other, true)
	if !broken(s + 70) {
		t.Error("after it was heard again, it is not soon called broken")
	}
	// Announcements come by way of others only.
	s += 200
	p.met(at(s), other)
	for seq := range uint64(maxGaps) {
		p.announced(at(s), other, "1", seq+1)
	}
	if p.hop(at(s+4.5), other, true); !broken(s + 5) {
		t.Error("announcements come by way of others only, and it is not broken")
	}
	for seq := range uint64(10) {
		p.announced(at(s+200), other, "1", seq+10)
		p.hop(at(s+200), other, false)
	}
	p.met(at(s+200), other)
	if p.hop(at(s+210), other, true); broken(s + 211) {
		t.Error("announcements come straight, and it is broken")
	}
	// Pulses arrive, and announcements do not.
	s += 200
	p.met(at(s), other)
	p.checkCount(at(s), other, "2", 1)
	last := uint64(1)
	for range maxGaps {
		if p.hop(at(s), other, true); broken(s) {
			t.Error("a gap breaks it")
		}
		last++
		p.checkCount(at(s+0.1), other, "2", last)
		p.checkCount(at(s+2), other, "2", last)
		s += 2
	}
	if p.hop(at(s), other, true); !broken(s) {
		t.Errorf("%d announcements are missing in a row, and it is not broken", maxGaps)
	}
}
