package record

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLiveness(t *testing.T) {
	const long = time.Hour
	heard := func(master string, age float64) Observer { return Observer{Master: master, AgeS: age, Reachable: true} }
	lost := func(master string, age float64) Observer { return Observer{Master: master, AgeS: age} }
	for _, c := range []struct {
		name      string
		observers []Observer
		listening time.Duration
		want      Status
		reason    string // a part of it
	}{
		{"heard by this master", []Observer{heard("m1", 1.2)}, long, Online, ""},
		{"heard just in time", []Observer{heard("m1", 30)}, long, Online, ""},
		{"heard too long ago", []Observer{heard("m1", 30.001)}, long, Offline, ""},
		{"heard by another master only", []Observer{heard("m1", 99), heard("m2", 3)}, long, Online, ""},
		{"heard by nobody", nil, long, Offline, ""},
		{"heard by nobody, just started", nil, 29 * time.Second, Suspect, "since this master started"},
		{"heard by nobody, started a while ago", nil, 30 * time.Second, Offline, ""},
		{"silent, and known to be", []Observer{heard("m1", 99)}, time.Second, Offline, ""},
		{"the master that heard it is gone", []Observer{lost("m2", 5)}, long, Suspect, "m2"},
		{"gone as well, but another hears it", []Observer{lost("m2", 1), heard("m1", 29)}, long, Online, ""},
		{"gone, and another does not hear it", []Observer{lost("m2", 5), heard("m1", 99)}, long, Suspect, "m2"},
		{"gone for long", []Observer{lost("m2", 60.1)}, long, Offline, ""},
		{"gone until the timer ends", []Observer{lost("m2", 60)}, long, Suspect, "m2"},
		{"two are gone, the later is named", []Observer{lost("m2", 50), lost("m3", 40)}, long, Suspect, "m3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, reason := Liveness(c.observers, Listening{For: c.listening, OfflineAfter: 30 * time.Second})
			if status != c.want || !strings.Contains(reason, c.reason) || (reason == "") != (status != Suspect) {
				t.Errorf("Liveness = %s, %q; want %s, %q", status, reason, c.want, c.reason)
			}
		})
	}
}

// drawLimit draws the offline-after that a master tells, or that it tells none.
func drawLimit(t *rapid.T) time.Duration {
	return draw(t, "limit", 0, 3*time.Second, 30*time.Second, 60*time.Second)
}

func drawListening(t *rapid.T) Listening {
	return Listening{
		For: time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "listening")), OfflineAfter: 30 * time.Second,
		Preserving: rapid.Bool().Draw(t, "preserving"), Preserved: time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "preserved")),
	}
}

// after is the same at a later time.
func (l Listening) after(d time.Duration) Listening {
	l.For += d
	l.Preserved += d
	return l
}

// More evidence of life never makes a node less alive, whatever its order.
func TestLivenessIsMonotone(t *testing.T) {
	rank := map[Status]int{Offline: 0, Suspect: 1, Online: 2}
	observer := rapid.Custom(func(t *rapid.T) Observer {
		return Observer{
			Master: draw(t, "master", "m1", "m2"), AgeS: draw(t, "age", 0.0, 2, 3, 4, 7, 29, 30, 31, 59, 60, 61, 1e6),
			Reachable: rapid.Bool().Draw(t, "reachable"), OfflineAfter: drawLimit(t),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(observer, 1, 4).Draw(t, "observers")
		l := drawListening(t)
		status, _ := Liveness(some, l)
		if s, _ := Liveness(rapid.Permutation(some).Draw(t, "order"), l); s != status {
			t.Fatalf("%v is %s, in another order %s", some, status, s)
		}
		fresh := append([]Observer{{Master: "m3", Reachable: true}}, some...)
		if s, _ := Liveness(fresh, l); s != Online {
			t.Fatalf("heard this moment, and %s", s)
		}
		younger := append([]Observer(nil), some...)
		younger[0].AgeS /= 2
		if s, _ := Liveness(younger, l); rank[s] < rank[status] {
			t.Fatalf("%v is %s, and heard later %s", some, status, s)
		}
	})
}

// Masters whose own limits differ compute the same of a node, as long as those that hear
// it say by which limit they judge.
func TestLivenessIsTheSameAtAllMasters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Observer {
			return Observer{
				Master: draw(t, "master", "m1", "m2"), AgeS: rapid.Float64Range(0, 130).Draw(t, "age"), Reachable: rapid.Bool().Draw(t, "reachable"),
				OfflineAfter: draw(t, "limit", 3*time.Second, 30*time.Second, 60*time.Second),
			}
		}), 1, 4).Draw(t, "observers")
		l := drawListening(t)
		status, reason := Liveness(some, l)
		holds, ends := LivenessHolds(some, l)
		l.OfflineAfter = draw(t, "other limit", time.Second, 3*time.Second, time.Hour)
		if s, r := Liveness(some, l); s != status || r != reason {
			t.Fatalf("%v is %s (%s) at one master, %s (%s) at another", some, status, reason, s, r)
		}
		if h, e := LivenessHolds(some, l); h != holds || e != ends {
			t.Fatalf("%v holds %v, %v at one master, %v, %v at another", some, holds, ends, h, e)
		}
		laxer := append([]Observer(nil), some...)
		laxer[0].OfflineAfter *= 2
		rank := map[Status]int{Offline: 0, Suspect: 1, Online: 2}
		if s, _ := Liveness(laxer, l); rank[s] < rank[status] {
			t.Fatalf("%v is %s, and %s where a master lets it be silent for longer", some, status, s)
		}
	})
}

func TestObserverAge(t *testing.T) {
	if got := (Observer{AgeS: 1.25}).Age(); got != 1250*time.Millisecond {
		t.Errorf("1.25 s is %v", got)
	}
}

// A status stays as long as it is said to, and the time that is said comes to an
// end: then it changes, or time can not change it any more.
func TestLivenessHolds(t *testing.T) {
	observer := rapid.Custom(func(t *rapid.T) Observer {
		return Observer{
			Master: draw(t, "master", "m1", "m2"), AgeS: rapid.Float64Range(0, 90).Draw(t, "age"),
			Reachable: rapid.Bool().Draw(t, "reachable"), OfflineAfter: drawLimit(t),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(observer, 0, 4).Draw(t, "observers")
		l := drawListening(t)
		after := func(d time.Duration) Status {
			later := append([]Observer(nil), some...)
			for i := range later {
				later[i].AgeS += d.Seconds()
			}
			s, _ := Liveness(later, l.after(d))
			return s
		}
		const rounding = time.Microsecond // ages are floating point
		holds, ends := LivenessHolds(some, l)
		now := after(0)
		if !ends {
			holds = time.Hour
		} else if was := after(holds + rounding); was == now {
			t.Fatalf("%v is %s for %v, and still is after", some, now, holds)
		}
		if d := time.Duration(rapid.Int64Range(0, max(0, int64(holds-rounding))).Draw(t, "d")); after(d) != now {
			t.Fatalf("%v is %s for %v, but %s after %v", some, now, holds, after(d), d)
		}
	})
}

// The whole of the function, over who heard a node when, whether they are reachable,
// and whether the grid is being preserved.
func TestStatusTable(t *testing.T) {
	const offlineAfter = 30 * time.Second
	ages := []float64{0, 30, 30.5, 45, 60, 60.5, 89, 91, 1000} // seconds
	for _, preserved := range []time.Duration{-1, 0, 30 * time.Second, time.Minute} {
		l := Listening{For: time.Hour, OfflineAfter: offlineAfter, Preserving: preserved >= 0, Preserved: max(preserved, 0)}
		for _, a := range ages {
			for _, b := range ages {
				for _, reachable := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
					observers := []Observer{{Master: "m1", AgeS: a, Reachable: reachable[0]}, {Master: "m2", AgeS: b, Reachable: reachable[1]}}
					fresh, recent, youngest := false, false, min(a, b)
					for _, w := range observers {
						fresh = fresh || w.Reachable && w.AgeS <= 30
						recent = recent || !w.Reachable && w.AgeS <= 60
					}
					want := Offline
					switch {
					case fresh:
						want = Online
					case recent, preserved >= 0 && youngest <= 30+preserved.Seconds():
						want = Suspect
					}
					if got, reason := Liveness(observers, l); got != want || (reason == "") != (got != Suspect) {
						t.Errorf("%+v, preserved %v: %s %q, want %s", observers, preserved, got, reason, want)
					}
				}
			}
		}
	}
}

func TestPreserve(t *testing.T) {
	for _, c := range []struct {
		late, alive int
		starts      bool // where nothing was preserved
		goesOn      bool // where something was
	}{
		{0, 0, false, false}, {1, 1, false, false}, {2, 2, false, false},
		{1, 3, false, false}, {2, 3, true, true}, {3, 3, true, true},
		{2, 4, false, true}, {3, 4, true, true}, {1, 9, false, false}, {4, 9, false, true}, {5, 9, true, true},
		{1, 10, false, false}, {2, 10, false, true}, {3, 10, true, true},
		{250, 1000, false, true}, {251, 1000, true, true}, {125, 1000, false, false}, {126, 1000, false, true},
		{25_000, 100_000, false, true}, {25_001, 100_000, true, true}, {1, 100_000, false, false},
	} {
		if got := Preserve(c.late, c.alive, false); got != c.starts {
			t.Errorf("%d of %d late starts it: %v", c.late, c.alive, got)
		}
		if got := Preserve(c.late, c.alive, true); got != c.goesOn {
			t.Errorf("%d of %d late goes on: %v", c.late, c.alive, got)
		}
	}
	// What starts it does not end it at once, and more that are late never end it.
	rapid.Check(t, func(t *rapid.T) {
		alive := rapid.IntRange(0, 1000).Draw(t, "alive")
		late := rapid.IntRange(0, alive).Draw(t, "late")
		if Preserve(late, alive, false) && !Preserve(late, alive, true) {
			t.Fatal("it ends when it starts")
		}
		for _, on := range []bool{false, true} {
			if late > 0 && Preserve(late-1, alive, on) && !Preserve(late, alive, on) {
				t.Fatal("one more that is late ends it")
			}
		}
	})
}
