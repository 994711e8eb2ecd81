package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
)

type goldenState struct {
	name, about string
	state       State
}

// goldenStates are the states whose encoding is fixed: what one release has
// written, every later one must read and write the same.
func goldenStates(tb rapid.TB) []goldenState {
	registered := accept(tb, State{}, report(5, 1, "a", VM{SID: "1", Name: "web", State: "running", CPU: 2, Memory: 1 << 30, IP: "10.0.0.1"}), 100)
	removed := Join(registered, Removal{Boot: 5, Stamp: Stamp{Wall: 200}, Master: "m1", Reason: "broken", By: "ann"}.state())
	claimRemoved := Join(registered, registered.Remove(200, "m1", "ann", "broken"))
	conflict := Join(accept(tb, State{}, signed(report(5, 1, "a"), 1), 100), accept(tb, State{}, signed(report(6, 2, "b"), 2), 101))
	return []goldenState{
		{"nothing", "The zero state.", State{}},
		{"registered", "An unsigned node with one VM.", registered},
		{"removed", "The same node after its removal, in schema version 1.", removed},
		{"removed-claim", "The same node after its removal, in schema version 2.", claimRemoved},
		{"successor", "The same node id, taken over by a key after the removal.",
			accept(tb, claimRemoved, signed(report(3, 1, "b"), 1), 300)},
		{"returned", "The same node with a later boot, drained.",
			func() State {
				s := accept(tb, removed, report(6, 1, "b"), 300)
				return Join(s, s.Set(300, "m2", "bob", FieldDrain, "1"))
			}()},
		{"conflict", "Two keys that claim one node id.", conflict},
		{"troubled", "A signed node that finds two things wrong with its machine.", func() State {
			r := report(5, 1, "a")
			r.Trouble = []string{"the disk of the agent is full", "some figures cannot be read"}
			return accept(tb, State{}, signed(r, 1), 100)
		}()},
		{"typical", "A signed node with five VMs, four labels of its own, a label and a drain by an operator.", typicalState(tb, 1)},
	}
}

func TestGoldenEncoding(t *testing.T) {
	for _, g := range goldenStates(t) {
		t.Run(g.name, func(t *testing.T) {
			file := filepath.Join("testdata", g.name+".golden")
			if *golden.Update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(describe(t, g)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v; write it with go test -run Golden -update", err)
			}
			in, digest := readGolden(t, string(want))
			if got := g.state.Encode(); !bytes.Equal(got, in) || hexOf(g.state.Digest(testNode)) != digest {
				t.Errorf("the encoding changed; data on disk and other masters rely on it.\ngot:\n%s\nwant:\n%s", describe(t, g), want)
			}
			s, err := Decode(string(in))
			if err != nil || !s.Equal(g.state) {
				t.Errorf("decodes to %+v, %v", s, err)
			}
		})
	}
}

// describe writes what a state is, how it is shown, its digest and its bytes. The
// first two are for people; they are not compared.
func describe(t *testing.T, g goldenState) string {
	var b strings.Builder
	b.WriteString("# " + g.about + "\n# Shown as:\n#   ")
	shown, err := json.MarshalIndent(View(testNode, g.state), "#   ", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(shown)
	b.WriteString("\ndigest " + hexOf(g.state.Digest(testNode)) + "\n")
	for line := range slices.Chunk(g.state.Encode(), 32) {
		b.WriteString(hex.EncodeToString(line) + "\n")
	}
	return b.String()
}

func hexOf(d Digest) string { return hex.EncodeToString(d[:]) }

func readGolden(t *testing.T, text string) (in []byte, digest string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if d, ok := strings.CutPrefix(line, "digest "); ok {
			digest = d
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, b...)
	}
	return in, digest
}

// What a node signs, piece by piece, and the signature.
func TestGoldenSignature(t *testing.T) {
	r := typicalReport(1)
	r.Sign(testKey(1))
	signed := r.signedBytes()
	var lines []golden.Line
	rest := signed
	for _, piece := range []struct {
		size int
		note string
	}{
		{len(signingDomain), "hero_explorer account v1, and a line feed"},
		{4, "length of the node id"},
		{len(testNode), "node id"},
		{8, "boot"},
		{8, "seq"},
		{32, "SHA-256 of the profile"},
		{32, "SHA-256 of the VM list"},
	} {
		lines, rest = append(lines, golden.Line{From: "signed", Bytes: rest[:piece.size], Note: piece.note}), rest[piece.size:]
	}
	if len(rest) > 0 {
		t.Errorf("%x is signed too", rest)
	}
	lines = append(lines, golden.Line{From: "key", Bytes: r.PublicKey}, golden.Line{From: "signature", Bytes: r.Signature})
	kept := golden.Check(t, "signature", "What a node with a profile and five VMs signs.", lines)
	r.PublicKey, r.Signature = golden.Bytes(golden.Of("key", kept)), golden.Bytes(golden.Of("signature", kept))
	if !r.verified() || !ed25519.Verify(r.PublicKey, golden.Bytes(golden.Of("signed", kept)), r.Signature) {
		t.Error("the kept signature is not good any more")
	}
}

// A state of a newer schema says so, and cannot be taken for a broken one.
func TestStateOfANewerVersion(t *testing.T) {
	in := typicalState(t, 1).Encode()
	for version, newer := range map[byte]bool{0: false, 1: false, 2: false, 3: true, 255: true} {
		in[0] = version
		s, err := Decode(string(in))
		if errors.Is(err, ErrNewer) != newer || newer && !errors.Is(err, ErrEncoding) || (err == nil) != (version == 1) || err != nil && !s.IsZero() {
			t.Errorf("version %d: %v", version, err)
		}
	}
}
