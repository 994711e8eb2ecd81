package dagsync

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
)

// goldenHistory is a history with a fork: the first block, two on it, and one that
// joins these.
func goldenHistory(t testing.TB) []dag.Block {
	t.Helper()
	made := func(height uint64, value string, past ...dag.Block) dag.Block {
		var links []cid.Cid
		for _, p := range past {
			links = append(links, p.Cid)
		}
		b, err := dag.New([]dag.Element{{Key: "/nnode-1/12D3KooWoak.0000002a", Value: []byte(value)}}, height, links)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := made(1, "first")
	left, right := made(2, "left", first), made(2, "right", first)
	return []dag.Block{first, left, right, made(3, "joined", left, right)}
}

func blockNames(t testing.TB) map[string]string {
	t.Helper()
	names := map[string]string{}
	for i, b := range goldenHistory(t) {
		name := []string{"first", "left", "right", "joined"}[i]
		names[string(b.Raw)], names[string(b.Cid.Bytes())] = "block "+name, name
	}
	return names
}

var announcementFields = golden.Fields{1: {Name: "epoch"}, 2: {Name: "block"}, 3: {Name: "run"}, 4: {Name: "seq"}}

func TestGoldenAnnouncement(t *testing.T) {
	blocks := goldenHistory(t)[:2]
	msgs := Announcements(7, blocks, 1<<20)
	if len(msgs) != 1 {
		t.Fatalf("%d messages", len(msgs))
	}
	const run = "00000199c82cc000aaaaaaaaaaaaaaaa"
	kept := golden.Check(t, "announcement", "Two blocks of epoch 7, the second on the first, in the twelfth announcement of a run.",
		golden.Message(t, Sequenced(msgs[0], run, 12), announcementFields))
	checkAnnouncement(t, golden.Bytes(kept), 7, blocks)
	if is, seq := Sequence(golden.Bytes(kept)); is != run || seq != 12 {
		t.Errorf("it is number %d of run %q", seq, is)
	}
	if is, seq := Sequence(msgs[0]); is != "" || seq != 0 {
		t.Errorf("one of an earlier version is number %d of run %q", seq, is)
	}
}

func checkAnnouncement(t *testing.T, msg []byte, epoch uint64, blocks []dag.Block) {
	t.Helper()
	a, err := ParseAnnouncement(msg)
	if err != nil || a.Epoch != epoch || len(a.Blocks) != len(blocks) {
		t.Fatalf("it reads as %+v, %v", a, err)
	}
	for i, raw := range a.Blocks {
		b, err := dag.Parse(raw)
		if err != nil || b.Cid != blocks[i].Cid || b.Height != blocks[i].Height || !slices.Equal(b.Links, blocks[i].Links) {
			t.Fatalf("block %d reads as %+v, %v", i, b, err)
		}
		got, err := b.Elements()
		want, wantErr := blocks[i].Elements()
		if err := errors.Join(err, wantErr); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("block %d writes %q, %v, want %q", i, got, err, want)
		}
	}
}

// A newer version may add fields of any kind, before and behind the others.
func TestGoldenAnnouncementOfANewerVersion(t *testing.T) {
	blocks := goldenHistory(t)[:2]
	later := func(b []byte) []byte {
		b = protowire.AppendVarint(protowire.AppendTag(b, 77, protowire.VarintType), 1<<40)
		b = protowire.AppendFixed64(protowire.AppendTag(b, 78, protowire.Fixed64Type), 1)
		return protowire.AppendString(protowire.AppendTag(b, 79, protowire.BytesType), "of a later version")
	}
	msg := append(later(nil), Announcements(7, blocks, 1<<20)[0]...)
	checkAnnouncement(t, later(msg), 7, blocks)
}

// overheard is a stream of which all that is written is noted.
type overheard struct {
	network.Stream
	wrote func([]byte)
}

func (o overheard) Write(b []byte) (int, error) {
	o.wrote(bytes.Clone(b))
	return o.Stream.Write(b)
}

// transcript has two sides talk and returns all frames, in order: they take turns,
// so the order is always the same.
func transcript(t testing.TB, puller, server *replica, note func(from string, frame []byte) string) []golden.Line {
	t.Helper()
	var mu sync.Mutex
	said := map[string][]byte{}
	var lines []golden.Line
	hear := func(from string) func([]byte) {
		return func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			all := append(said[from], b...)
			for frame, n := protowire.ConsumeBytes(all); n >= 0; frame, n = protowire.ConsumeBytes(all) {
				lines = append(lines, golden.Line{From: from, Bytes: all[:n:n], Note: note(from, frame)})
				all = all[n:]
			}
			said[from] = all
		}
	}
	a, b := newPipe()
	served := make(chan error, 1)
	go func() {
		_, err := Serve(t.Context(), overheard{b, hear("server")}, server)
		served <- err
	}()
	_, err := Pull(t.Context(), overheard{a, hear("puller")}, puller, puller.deliver)
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestGoldenPull(t *testing.T) {
	all, names := goldenHistory(t), blockNames(t)
	note := func(from string, frame []byte) string {
		if name := names[string(frame)]; name != "" {
			return name
		}
		if from == "puller" && len(frame) == 1 && frame[0] == 7 {
			return "of epoch 7"
		}
		if from == "puller" {
			return "1: here, 0: not"
		}
		text := "offer"
		for rest := frame; len(rest) > 0; {
			c, n := protowire.ConsumeBytes(rest)
			text, rest = text+" "+names[string(c)], rest[n:]
		}
		if text == "offer" {
			return "no more offers"
		}
		return text
	}
	sides := func() (puller, server *replica) {
		puller, server = newReplica(all[:2]...), newReplica(all...)
		puller.number, server.number = 7, 7
		return puller, server
	}
	puller, server := sides()
	kept := golden.Check(t, "pull", `A puller that has the blocks first and left, and a server that has right and joined too.
joined builds on left and right, and these on first.`, transcript(t, puller, server, note))

	// Each side of today understands the other of then.
	puller, server = sides()
	if _, err := Pull(t.Context(), recording(t, kept, "puller", "server"), puller, puller.deliver); err != nil || !puller.holds(server) {
		t.Errorf("pulling from the kept server: %v", err)
	}
	_, server = sides()
	if n, err := Serve(t.Context(), recording(t, kept, "server", "puller"), server); err != nil || n != 2 {
		t.Errorf("serving the kept puller: %d blocks, %v", n, err)
	}
}

// recording is a stream to the one who said the kept lines. What self writes must
// be what it said then.
func recording(t testing.TB, kept []golden.Line, self, other string) network.Stream {
	t.Helper()
	a, b := newPipe()
	if _, err := b.Write(golden.Bytes(golden.Of(other, kept))); err != nil {
		t.Fatal(err)
	}
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var said []byte
	t.Cleanup(func() {
		if want := golden.Bytes(golden.Of(self, kept)); !bytes.Equal(said, want) {
			t.Errorf("the %s says\n%x, want\n%x", self, said, want)
		}
	})
	return overheard{a, func(b []byte) { said = append(said, b...) }}
}
