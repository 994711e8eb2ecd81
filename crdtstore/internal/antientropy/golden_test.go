package antientropy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// overheard is a stream of which all that is written is noted.
type overheard struct {
	network.Stream
	wrote func([]byte)
}

func (o overheard) Write(b []byte) (int, error) {
	o.wrote(b)
	return o.Stream.Write(b)
}

// goldenSides hold one node alike, one otherwise, and one each that the other does
// not know.
func goldenSides() (comparer, server *side) {
	comparer, server = &side{Table: table.New()}, &side{Table: table.New()}
	for node, s := range map[string]record.State{"alike": account(1, "same", 1), "comparers": account(1, "only", 0), "other": account(1, "older", 1)} {
		comparer.Join(node, s)
	}
	for node, s := range map[string]record.State{"alike": account(1, "same", 1), "servers": account(1, "only", 0), "other": account(2, "newer", 0)} {
		server.Join(node, s)
	}
	return comparer, server
}

// transcript has two sides talk and returns what was said, frame by frame. They take
// turns, so the order is always the same.
func transcript(t testing.TB, compare func(network.Stream, *side) error) []golden.Line {
	t.Helper()
	comparer, server := goldenSides()
	var mu sync.Mutex
	said := map[string][]byte{}
	var lines []golden.Line
	lists := 0
	hear := func(from string) func([]byte) {
		return func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			all := append(said[from], b...)
			for frame, n := protowire.ConsumeBytes(all); n >= 0; frame, n = protowire.ConsumeBytes(all) {
				whole := golden.Line{From: from, Bytes: all[:n:n], Note: "of the list"}
				switch {
				case len(frame) == 1+table.Buckets*digestSize:
					lines = append(lines, cutDigests(whole)...)
					whole.Bytes = nil
				case len(frame) == table.Buckets:
					whole.Note = "1: the bucket differs"
				case len(frame) == 0:
					lists++
					whole.Note = fmt.Sprintf("end of list %d", lists)
				}
				if whole.Bytes != nil {
					lines = append(lines, whole)
				}
				all = all[n:]
			}
			said[from] = bytes.Clone(all)
		}
	}
	p, q := newPipe()
	served := make(chan error)
	go func() { served <- Serve(t.Context(), overheard{q, hear("server")}, server.Table, server.take) }()
	err := compare(overheard{p, hear("comparer")}, comparer)
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	return lines
}

// cutDigests cuts the first frame into its head, the buckets that hold something, and
// what is between these.
func cutDigests(l golden.Line) (out []golden.Line) {
	piece := func(bytes []byte, note string) {
		if len(bytes) > 0 {
			out = append(out, golden.Line{From: l.From, Bytes: bytes, Note: note})
		}
	}
	head := len(l.Bytes) - table.Buckets*digestSize
	piece(l.Bytes[:head], "mode, and behind it the digest of each bucket")
	rest, empty := l.Bytes[head:], 0
	for i := range table.Buckets {
		if digest := rest[empty : empty+digestSize]; !bytes.Equal(digest, make([]byte, digestSize)) {
			piece(rest[:empty], "empty buckets")
			piece(digest, fmt.Sprintf("bucket %d", i))
			rest, empty = rest[empty+digestSize:], 0
			continue
		}
		empty += digestSize
	}
	piece(rest, "empty buckets")
	return out
}

func TestGoldenMerge(t *testing.T) {
	merge := func(s network.Stream, c *side) error {
		n, err := Merge(t.Context(), s, c.Table, c.take)
		if err == nil && n != 3 {
			err = fmt.Errorf("%d nodes differed", n)
		}
		return err
	}
	kept := golden.Check(t, "merge", `Two masters that hold one node alike, one otherwise and one each that the other does not know.
Lists: what the server holds in the buckets that differ; the states that the comparer
holds; the nodes that it wants; the states of these.`, transcript(t, merge))
	comparer, server := goldenSides()
	replay(t, kept, "server", func(s network.Stream) error { return merge(s, comparer) })
	replay(t, kept, "comparer", func(s network.Stream) error { return Serve(t.Context(), s, server.Table, server.take) })
	if left := differing(comparer.Table, server.Table); len(left) > 0 || comparer.came != 2 || server.came != 2 {
		t.Errorf("after talking to what was kept, %q differ", left)
	}
}

func TestGoldenLook(t *testing.T) {
	look := func(s network.Stream, c *side) error {
		list, n, err := Look(t.Context(), s, c.Table, 10)
		if err == nil && (n != 3 || len(list) != 3) {
			err = fmt.Errorf("%d nodes differed, %d are listed", n, len(list))
		}
		return err
	}
	kept := golden.Check(t, "look", `The same two masters, when one only looks how the other differs.
Lists: what the server holds in the buckets that differ; the nodes that the comparer
wants; the states of these.`, transcript(t, look))
	comparer, server := goldenSides()
	replay(t, kept, "server", func(s network.Stream) error { return look(s, comparer) })
	replay(t, kept, "comparer", func(s network.Stream) error { return Serve(t.Context(), s, server.Table, server.take) })
	if comparer.came+server.came > 0 {
		t.Error("looking changed something")
	}
}

// replay has one side talk to what the other side is kept to have said, and looks
// that it says what it said then.
func replay(t *testing.T, kept []golden.Line, other string, talk func(network.Stream) error) {
	t.Helper()
	p, q := newPipe()
	var said []byte
	go func() {
		for _, l := range kept {
			var err error
			if l.From == other {
				_, err = q.Write(l.Bytes)
			} else {
				b := make([]byte, len(l.Bytes))
				_, err = io.ReadFull(q, b)
			}
			if err != nil {
				return // talk fails too
			}
		}
	}()
	if err := talk(overheard{p, func(b []byte) { said = append(said, b...) }}); err != nil {
		t.Errorf("with the kept %s: %v", other, err)
	}
	own := slices.DeleteFunc(slices.Clone(kept), func(l golden.Line) bool { return l.From == other })
	if want := golden.Bytes(own); !bytes.Equal(said, want) {
		t.Errorf("says to the kept %s\n%x, want\n%x", other, said, want)
	}
}

// Of a program of the next version some states are of a schema that this one does not
// know. The error says so; what can be read is taken, and nothing else is changed.
func TestStatesOfANewerVersion(t *testing.T) {
	ask := frame(append([]byte{modeMerge}, make([]byte, table.Buckets*digestSize)...))
	later := append([]byte{record.SchemaVersion + 1}, account(1, "later", 0).Encode()[1:]...)
	entry := func(node string, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendString(nil, node), value)
	}
	end := frame(nil)
	states := frame(slices.Concat(entry("a", later), entry("known", account(1, "x", 0).Encode()), entry("z", later)))
	all := frame(bytes.Repeat([]byte{1}, table.Buckets))
	digests := frame(slices.Concat(entry("a", make([]byte, digestSize)), entry("known", make([]byte, digestSize))))
	for name, talk := range map[string]func(*testing.T, *side) error{
		"served": func(t *testing.T, s *side) error {
			return say(t, [][]byte{ask, states, end, end}, func(p pipe) error { return Serve(t.Context(), p, s.Table, s.take) })
		},
		"merged": func(t *testing.T, s *side) error {
			return say(t, [][]byte{all, digests, end, states, end}, func(p pipe) error {
				_, err := Merge(t.Context(), p, s.Table, s.take)
				return err
			})
		},
	} {
		s := &side{Table: table.New()}
		s.Join("a", account(1, "as it was", 0))
		if err := talk(t, s); !errors.Is(err, record.ErrNewer) {
			t.Errorf("%s: the error is %v", name, err)
		}
		if s.came != 1 || s.Get("known") == nil || s.Get("z") != nil || s.Get("a").Node().Hostname != "as it was" {
			t.Errorf("%s: %d states were taken", name, s.came)
		}
	}
}
