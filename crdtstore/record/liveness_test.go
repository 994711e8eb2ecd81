package record

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLiveness(t *testing.T) {
	const long = time.Hour
	heard := func(master string, age float64) Witness { return Witness{master, age, true} }
	lost := func(master string, age float64) Witness { return Witness{master, age, false} }
	for _, c := range []struct {
		name      string
		witnesses []Witness
		listening time.Duration
		want      Status
		reason    string // a part of it
	}{
		{"heard by this master", []Witness{heard("m1", 1.2)}, long, Online, ""},
		{"heard just in time", []Witness{heard("m1", 30)}, long, Online, ""},
		{"heard too long ago", []Witness{heard("m1", 30.001)}, long, Offline, ""},
		{"heard by another master only", []Witness{heard("m1", 99), heard("m2", 3)}, long, Online, ""},
		{"heard by nobody", nil, long, Offline, ""},
		{"heard by nobody, just started", nil, 29 * time.Second, Suspect, "since this master started"},
		{"heard by nobody, started a while ago", nil, 30 * time.Second, Offline, ""},
		{"silent, and known to be", []Witness{heard("m1", 99)}, time.Second, Offline, ""},
		{"the master that heard it is gone", []Witness{lost("m2", 5)}, long, Suspect, "m2"},
		{"gone as well, but another hears it", []Witness{lost("m2", 1), heard("m1", 29)}, long, Online, ""},
		{"gone, and another does not hear it", []Witness{lost("m2", 5), heard("m1", 99)}, long, Suspect, "m2"},
		{"gone for long", []Witness{lost("m2", 60.1)}, long, Offline, ""},
		{"gone until the timer ends", []Witness{lost("m2", 60)}, long, Suspect, "m2"},
		{"two are gone, the later is named", []Witness{lost("m2", 50), lost("m3", 40)}, long, Suspect, "m3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, reason := Liveness(c.witnesses, c.listening, 30*time.Second)
			if status != c.want || !strings.Contains(reason, c.reason) || (reason == "") != (status != Suspect) {
				t.Errorf("Liveness = %s, %q; want %s, %q", status, reason, c.want, c.reason)
			}
		})
	}
}

// More evidence of life never makes a node less alive, whatever its order.
func TestLivenessIsMonotone(t *testing.T) {
	rank := map[Status]int{Offline: 0, Suspect: 1, Online: 2}
	witness := rapid.Custom(func(t *rapid.T) Witness {
		return Witness{draw(t, "master", "m1", "m2"), draw(t, "age", 0.0, 29, 30, 31, 59, 60, 61, 1e6), rapid.Bool().Draw(t, "reachable")}
	})
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(witness, 1, 4).Draw(t, "witnesses")
		listening := draw(t, "listening", 0, time.Second, time.Minute)
		status, _ := Liveness(some, listening, 30*time.Second)
		if s, _ := Liveness(rapid.Permutation(some).Draw(t, "order"), listening, 30*time.Second); s != status {
			t.Fatalf("%v is %s, in another order %s", some, status, s)
		}
		fresh := append([]Witness{{"m3", 0, true}}, some...)
		if s, _ := Liveness(fresh, listening, 30*time.Second); s != Online {
			t.Fatalf("heard this moment, and %s", s)
		}
		younger := append([]Witness(nil), some...)
		younger[0].AgeS /= 2
		if s, _ := Liveness(younger, listening, 30*time.Second); rank[s] < rank[status] {
			t.Fatalf("%v is %s, and heard later %s", some, status, s)
		}
	})
}

func TestWitnessAge(t *testing.T) {
	if got := (Witness{AgeS: 1.25}).Age(); got != 1250*time.Millisecond {
		t.Errorf("1.25 s is %v", got)
	}
}

// A status stays as long as it is said to, and the time that is said comes to an
// end: then it changes, or time can not change it any more.
func TestLivenessHolds(t *testing.T) {
	const offlineAfter = 30 * time.Second
	witness := rapid.Custom(func(t *rapid.T) Witness {
		return Witness{draw(t, "master", "m1", "m2"), rapid.Float64Range(0, 90).Draw(t, "age"), rapid.Bool().Draw(t, "reachable")}
	})
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(witness, 0, 4).Draw(t, "witnesses")
		listening := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "listening"))
		after := func(d time.Duration) Status {
			later := append([]Witness(nil), some...)
			for i := range later {
				later[i].AgeS += d.Seconds()
			}
			s, _ := Liveness(later, listening+d, offlineAfter)
			return s
		}
		const rounding = time.Microsecond // ages are floating point
		holds, ends := LivenessHolds(some, listening, offlineAfter)
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
