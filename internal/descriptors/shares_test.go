package descriptors

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Whatever the limit, the parts together stay below it, and of twice as much none gets less.
func TestSharesStayBelowTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 1<<21).Draw(t, "limit")
		s := Of(limit)
		if sum := s.Reserve + s.Database + s.Local + s.Mesh + s.Edge + s.API + s.UI + s.Outbound; sum > limit {
			t.Fatalf("%d of %d: %+v", sum, limit, s)
		}
		more := Of(2 * limit)
		for name, pair := range map[string][2]int{
			"reserve": {s.Reserve, more.Reserve}, "database": {s.Database, more.Database}, "local": {s.Local, more.Local},
			"mesh": {s.Mesh, more.Mesh}, "edge": {s.Edge, more.Edge}, "API": {s.API, more.API}, "UI": {s.UI, more.UI},
			"outbound": {s.Outbound, more.Outbound},
		} {
			if pair[1] < pair[0] {
				t.Fatalf("%s has %d of a limit of %d, and %d of twice as much", name, pair[0], limit, pair[1])
			}
		}
	})
}

// At the lowest limit that is good every part has something to work with.
func TestEveryPartHasAShare(t *testing.T) {
	s := Of(Low)
	for name, n := range map[string]int{
		"reserve": s.Reserve, "local": s.Local, "mesh": s.Mesh, "edge": s.Edge, "API": s.API, "UI": s.UI, "outbound": s.Outbound,
	} {
		if n < 15 {
			t.Errorf("%s has %d descriptors of %d", name, n, Low)
		}
	}
	if s.Database < 64 { // Pebble keeps at least 64 tables
		t.Errorf("the database has %d", s.Database)
	}
	// Thousands of agents behind one address are served at the limit that most systems have.
	if s := Of(20_000); s.API < 6000 || s.Edge < 4500 {
		t.Errorf("of 20,000 the API has %d and the edge %d", s.API, s.Edge)
	}
}

// The soft limit that a shell or a service manager set is raised to the hard one.
func TestTheSoftLimitIsRaised(t *testing.T) {
	if os.Getenv("DESCRIPTORS_CHILD") != "" {
		print(Limit())
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -Sn 100 && ulimit -Hn 300 && exec "$0" -test.run '^TestTheSoftLimitIsRaised$'`, self)
	cmd.Env = append(os.Environ(), "DESCRIPTORS_CHILD=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "299") { // Go leaves one
		t.Errorf("a process with a soft limit of 100 and a hard one of 300 has %q, %v", out, err)
	}
}
