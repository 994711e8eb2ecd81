package sim

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutants are faults planted into the real code. The simulator must find each: what
// it does not find it does not check.
var mutants = []struct {
	name     string
	file     string // relative to crdtstore
	old, new string
}{
	{
		"an epoch is deleted although the newer one lacks something (INV-6)",
		"internal/replica/turnover.go",
		"	if len(missing) > 0 {\n		r.log.Info(\"asserting records that the new epoch lacks\"",
		"	if len(missing) > 1000 {\n		r.log.Info(\"asserting records that the new epoch lacks\"",
	},
	{
		"equal stamps are not told apart",
		"record/override.go", "		cmp.Compare(w.Master, v.Master),\n		cmp.Compare(w.Value, v.Value),\n		cmp.Compare(w.By, v.By))", "		0)",
	},
	{
		"unequal accounts of one version are not told apart",
		"record/claim.go", "	if c := cmp.Compare(a.Body, b.Body); c != 0 {\n		return c\n	}\n	if c := cmp.Compare(a.Seal, b.Seal); c != 0 {\n		return c\n	}\n	return cmp.Compare(a.At, b.At)", "	return cmp.Compare(0, 0)",
	},
	{
		"the greatest height is trusted, over crashes that took the end of the history (INV-5)",
		"internal/epoch/key.go", `return fmt.Sprintf("%s.%08x", master, run)`, "_ = fmt.Sprint; return master",
	},
	{
		"removals are forgotten at once",
		"internal/replica/expire.go", "if e.State.Newest() < c && r.table.Drop(e) {", "if (e.Removed || e.State.Newest() < c) && r.table.Drop(e) {",
	},
	{
		"removals are kept no longer than nodes",
		"internal/replica/expire.go", "const keepFactor = 10", "const keepFactor = 0",
	},
	{
		"the clock decides which override is the last",
		"record/version.go", "if now > above.Wall {", "if true {",
	},
	{
		"a removal hides what is older, and not what is as old",
		"record/claim.go", "return boot < c.RemovedBelow ||", "return boot+1 < c.RemovedBelow ||",
	},
	{
		"what is left out is erased (INV-2)",
		"record/accept.go", "r.Omitted != 0 && !profileHidden {", "false {",
	},
	{
		"what came by comparing states is not written down",
		"internal/replica/replica.go", "		return r.Mark(node), true", "		return nil, true",
	},
	{
		"what the disk did not take is not tried again",
		"internal/replica/publisher.go", "return nodes[at:], err", "return nil, err",
	},
	{
		"a write is acknowledged before it is on disk",
		"internal/replica/publisher.go", "	if _, ok := p.queued[node]; ok {\n		return p.next\n	}\n	if _, ok := p.writing", "	if _, ok := p.writing",
	},
	{
		"missing blocks are not fetched, and states not compared (INV-7)",
		"internal/replica/peers.go", "		return Pull, nil\n", "		return Rest, nil\n",
	},
	{
		"states are never compared (INV-7)",
		"internal/replica/peers.go", "	case apart > compareAfter && (", "	case apart > 1<<62 && (",
	},
	{
		"greater epochs are not followed",
		"internal/replica/turnover.go", "if number > r.history.Number() || number ==", "if number ==",
	},
	{
		"a new master is whole before it has compared states",
		"internal/replica/joining.go", "since < seeking || len(j.missing(now)) > 0 {", "since < seeking {",
	},
	{
		"what a master is heard to have stands for what it has, although it can be asked",
		"internal/replica/joining.go", "; !has || j.grid.Direct(id) {", "; !has {",
	},
	{
		"masters that are all new wait for each other",
		"internal/replica/joining.go", "		if s.exchanged || now.Sub(s.heard) > membership.SuspectAfter {", "		if now.Sub(s.heard) > membership.SuspectAfter {",
	},
	{
		"forged states are taken where states are compared",
		"internal/antientropy/exchange.go", "take(node, s.Verified(node))", "take(node, s)",
	},
	{
		"a forged claim ends a generation",
		"record/seal.go", "	if s.Claims = kept; len(kept) == 0 {\n		s.Generation = 0\n	}", "	s.Claims = kept",
	},
	{
		"claims of an earlier generation stay where they are known",
		"record/state.go", "		s.Claims = a.Claims\n", "		s.Claims = keepClaims(joinClaims(a.Claims, b.Claims))\n",
	},
	{
		"the VMs of too many claims are dropped by some joins only",
		"record/state.go", "keepClaims(joinClaims(a.Claims, b.Claims))", "joinClaims(a.Claims, b.Claims)",
	},
	{
		"nodes that live expire",
		"internal/replica/expire.go", "seen := max(s.Seen(), r.opts.Grid.Heard(e.ID))", "seen := s.Claims[0].Profile.At",
	},
}

// TestPlantedFaultsApply sees early that the code has moved on from under a fault.
func TestPlantedFaultsApply(t *testing.T) {
	for _, m := range mutants {
		mutantSource(t, m.file, m.old)
	}
}

// mutantSource returns the path and text of the file that a fault is planted into.
func mutantSource(t *testing.T, file, old string) (path, source string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("%s does not have exactly once:\n%s", file, old)
	}
	return path, string(text)
}

// TestPlantedFaultsAreFound builds the simulator with each fault in turn.
func TestPlantedFaultsAreFound(t *testing.T) {
	if !*planted {
		t.Skip("takes minutes; run it with make check-sim")
	}
	dir := t.TempDir()
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			path, source := mutantSource(t, m.file, m.old)
			mutated, overlay, bin := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
			spec, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
			if err == nil {
				err = errors.Join(
					os.WriteFile(mutated, []byte(strings.Replace(source, m.old, m.new, 1)), 0o600),
					os.WriteFile(overlay, spec, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", bin, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := exec.CommandContext(t.Context(), bin, "-test.timeout", "5m", "-test.run", "^TestSeeds$", "-sim.runs", "6000", "-sim.shrink=false").CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Errorf("not found in 6,000 runs: %v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "seed ") {
					t.Log(strings.TrimSpace(line))
					break
				}
			}
		})
	}
}
