package record

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestViewOfNothing(t *testing.T) {
	n := View(testNode, State{})
	want := `{"node_id":"node-1","boot":0,"seq":0,"hostname":"","socket_path":"","version":"",` +
		`"location":{"country":"","city":"","latitude":0,"longitude":0},"total":{"cru":0,"mru":0,"sru":0,"hru":0},` +
		`"slices_total":0,"labels":{},"vms":[],"usage":{"cru":0,"mru":0,"sru":0,"hru":0,"slices":0},"uptime_s":0,` +
		`"status":"","drained":false,"last_seen":"0001-01-01T00:00:00Z","seen_by":[],"tunnel":[],"signed":false,` +
		`"created_at":"0001-01-01T00:00:00Z","updated_at":"0001-01-01T00:00:00Z"}`
	if got, err := json.Marshal(n); err != nil || string(got) != want {
		t.Errorf("View of the zero state: %v\n%s\nwant\n%s", err, got, want)
	}
}

func TestViewOfATypicalNode(t *testing.T) {
	r := typicalReport(1)
	s := typicalState(t, 1)
	n := View(testNode, s)
	switch {
	case n.NodeID != testNode || n.Boot != r.Boot || n.Seq != 1 || n.Hostname != r.Hostname || n.Total != r.Total:
		t.Errorf("account: %+v", n)
	case !n.Signed || string(n.PublicKey) != publicKey(1) || n.Conflict != nil:
		t.Errorf("identity: %+v", n)
	case !n.Drained || n.Labels["zone"] != "eu" || n.Labels["rack"] != "r12":
		t.Errorf("words: %+v", n)
	case n.CreatedAt.UnixMilli() != 1_760_000_000_500 || n.UpdatedAt.UnixMilli() != 1_760_000_002_000 || n.LastSeen != n.CreatedAt:
		t.Errorf("times: %v %v %v", n.CreatedAt, n.UpdatedAt, n.LastSeen)
	case n.Status != "" || n.UptimeS != 0 || n.Usage != Usage{} || len(n.SeenBy) != 0 || len(n.Tunnel) != 0:
		t.Errorf("the record speaks of what only pulses know: %+v", n)
	case len(n.VMs) != 5:
		t.Fatalf("%d VMs", len(n.VMs))
	}
	for _, vm := range n.VMs {
		if vm.NodeID != testNode || vm.AsOf != n.LastSeen.Format(time.RFC3339) {
			t.Errorf("VM %+v", vm)
		}
	}
}

// A reader may do with a Node as it likes.
func TestViewSharesNothing(t *testing.T) {
	s := typicalState(t, 1)
	was := s.Digest(testNode)
	n := View(testNode, s)
	n.Labels["zone"], n.VMs[0].State, n.PublicKey[0] = "x", "x", 0
	if s.Digest(testNode) != was || View(testNode, s).VMs[0].State != "running" || View(testNode, s).Labels["zone"] != "eu" {
		t.Error("a reader changed the state")
	}
}

func TestViewIsTotalAndPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genState.Draw(t, "s")
		n := View(testNode, s)
		if asJSON(n) != asJSON(View(testNode, s)) {
			t.Fatal("two looks at one state differ")
		}
		if n.Labels == nil || n.VMs == nil || n.SeenBy == nil || n.Tunnel == nil {
			t.Fatalf("a list is null: %+v", n)
		}
		if (n.RemovedAt != nil) != s.Removed() {
			t.Fatalf("removed is %v, removed_at %v", s.Removed(), n.RemovedAt)
		}
	})
}

// TestNothingReadsAClock looks for it in the source: what time decides comes in
// as a number, so no reader's clock can decide anything.
func TestNothingReadsAClock(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	clock := regexp.MustCompile(`time\.(Now|Since|Until|After|Tick|NewTimer|NewTicker|Sleep)\b|"(os|net|log|log/slog|sync|math/rand|math/rand/v2)"|\bgo func`)
	looked := 0
	for _, file := range files {
		if ok, _ := filepath.Match("*_test.go", file); ok {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		looked++
		if found := clock.Find(source); found != nil {
			t.Errorf("%s has %s; this package takes values and gives values", file, found)
		}
	}
	if looked == 0 {
		t.Error("no source file was found")
	}
}

func TestBadBodyShowsAsEmpty(t *testing.T) {
	s := State{Claims: []Claim{{
		First:   Stamp{Wall: 1},
		Profile: Account{Version: Version{1, 1}, Body: "\xff", At: 2},
		VMs:     Account{Version: Version{1, 1}, Body: "\xff", At: 2},
	}}}
	n := View(testNode, s)
	if n.Hostname != "" || n.VMs == nil || len(n.VMs) != 0 || n.Boot != 1 {
		t.Errorf("shown %+v", n)
	}
	if n = View(testNode, accept(t, s, report(1, 2, "good"), 3)); n.Hostname != "good" {
		t.Errorf("the next report does not replace it: %+v", n)
	}
}

// An agent that learns to sign replaces its unsigned account without a conflict;
// an unsigned sender that speaks of a later boot is one.
func TestUnsignedBesideSigned(t *testing.T) {
	s := accept(t, State{}, report(5, 1, "plain"), 100)
	s = accept(t, s, signed(report(6, 1, "signed"), 1), 200)
	if n := View(testNode, s); n.Hostname != "signed" || n.Conflict != nil || !n.Signed {
		t.Errorf("shown %+v", n)
	}
	other := accept(t, State{}, report(7, 1, "plain again"), 300) // at a master that did not know
	n := View(testNode, Join(s, other))
	if n.Hostname != "signed" || n.Conflict == nil || len(n.Conflict.Claims) != 2 {
		t.Errorf("shown %+v", n)
	}
}

// asJSON is how two nodes are compared, and shown where they differ.
func asJSON(n Node) string {
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// What State.VMs returns is what View shows, where View shows any.
func TestVMsAreThoseOfTheView(t *testing.T) {
	shown := 0
	rapid.Check(t, func(t *rapid.T) {
		s := genState.Draw(t, "state")
		want := View(testNode, s).VMs
		if len(want) == 0 {
			return
		}
		shown++
		if got := s.VMs(testNode); !slices.Equal(got, want) {
			t.Fatalf("%+v has the VMs %+v, its view %+v", s, got, want)
		}
	})
	if shown == 0 {
		t.Error("none has VMs")
	}
}

// TestVMsAlone: the VMs of a state, without the rest of its view, are those of the view;
// and two states that are said to have the same ones have.
func TestVMsAlone(t *testing.T) {
	told := func(s State) (out []VM) {
		for _, v := range s.VMs("n") {
			v.AsOf = ""
			out = append(out, v)
		}
		return out
	}
	same, differ := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		s := genState.Draw(t, "s")
		for _, other := range []State{genState.Draw(t, "t"), Join(s, genState.Draw(t, "u"))} {
			a, b := told(s), told(other)
			if got := s.SameVMs(other); got && !slices.Equal(a, b) {
				t.Fatalf("said to be the same: %+v and %+v", a, b)
			} else if got {
				same++
			} else {
				differ++
			}
			if !other.Removed() && !slices.Equal(other.VMs("n"), View("n", other).VMs) {
				t.Fatalf("%+v, in the view %+v", other.VMs("n"), View("n", other).VMs)
			}
		}
	})
	if same == 0 || differ == 0 {
		t.Errorf("%d pairs were said to be the same, %d to differ", same, differ)
	}
}
