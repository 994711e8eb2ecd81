package epoch

import (
	"context"
	"sync"

	"github.com/ipfs/go-cid"
	crdt "github.com/ipfs/go-ds-crdt"
	pb "github.com/ipfs/go-ds-crdt/pb"
	"google.golang.org/protobuf/proto"
)

// broadcaster is the crdt.Broadcaster. It does not broadcast: what go-ds-crdt publishes
// during a commit is noted down and announced after it. And it hands heads to
// go-ds-crdt one payload at a time, and knows when each has been applied,
// because go-ds-crdt asks for the next one only then.
type broadcaster struct {
	in      chan []byte
	applied chan struct{}
	handed  bool // only touched by Next

	mu         sync.Mutex // guards what follows
	collecting bool       // a commit is under way
	published  []cid.Cid
}

var _ crdt.Broadcaster = (*broadcaster)(nil)

func newBroadcaster() *broadcaster {
	return &broadcaster{in: make(chan []byte), applied: make(chan struct{}, 1)}
}

func (f *broadcaster) Broadcast(_ context.Context, payload []byte) error {
	var msg pb.CRDTBroadcast
	if err := proto.Unmarshal(payload, &msg); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.collecting {
		return nil // a rebroadcast
	}
	for _, h := range msg.GetHeads() {
		c, err := cid.Cast(h.GetCid())
		if err != nil {
			return err
		}
		f.published = append(f.published, c)
	}
	return nil
}

// collect notes down what is published from here on, or no longer.
func (f *broadcaster) collect(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.collecting = on
}

// take returns what was collected since the last take.
func (f *broadcaster) take() []cid.Cid {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.published
	f.published = nil
	return out
}

func (f *broadcaster) Next(ctx context.Context) ([]byte, error) {
	if f.handed {
		f.handed = false
		f.applied <- struct{}{}
	}
	select {
	case payload := <-f.in:
		f.handed = true
		return payload, nil
	case <-ctx.Done():
		return nil, crdt.ErrNoMoreBroadcast
	}
}

// apply hands blocks to go-ds-crdt, each of which builds only on blocks before
// it, and returns when it is done with them.
func (f *broadcaster) apply(heads []cid.Cid) error {
	var msg pb.CRDTBroadcast
	for _, c := range heads {
		msg.Heads = append(msg.Heads, &pb.Head{Cid: c.Bytes()})
	}
	payload, err := proto.Marshal(&msg)
	if err != nil {
		return err
	}
	f.in <- payload
	<-f.applied
	return nil
}
