package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	announceTopic = "/hero-explorer/announce/1"
	pulseTopic    = "/hero-explorer/pulse/1"

	// MaxMessage bounds a message, in bytes: four of the blocks that this
	// program writes, with room around them.
	MaxMessage = 1 << 20

	// Buffers hold what comes in a burst. pubsub drops what does not fit; at 32
	// messages, its default, masters that write at one instant lose most of it.
	buffer = 4096
)

// Options configure a Gossip. The two functions are called one message at a
// time per topic, in the order in which messages come in, and may take their
// time within what the buffers hold.
type Options struct {
	Host     host.Host // streams only between admitted masters
	Known    func(peer.ID) bool
	Logger   *slog.Logger
	Announce func(from peer.ID, data []byte)
	Pulse    func(from peer.ID, data []byte)
	// Arrived is called with an announcement when it comes in, before it waits for its
	// turn. Hop is called when a message comes straight from its author, also where it came
	// by way of others before, with whether it is a pulse. They must not block, and may be
	// nil.
	Arrived func(from peer.ID, data []byte)
	Hop     func(from peer.ID, pulse bool)
}

// Gossip is this master's part in the two topics.
type Gossip struct {
	ps              *pubsub.PubSub
	announce, pulse *pubsub.Topic
	cancel          context.CancelFunc
	readers         sync.WaitGroup
	lost            dropTracer
}

// Join joins both topics.
func Join(opts Options) (_ *Gossip, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gossip{cancel: cancel, lost: dropTracer{hop: opts.Hop, arrived: opts.Arrived}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	g.ps, err = pubsub.NewGossipSub(ctx, opts.Host,
		pubsub.WithFloodPublish(true), // masters are few: one hop for all
		pubsub.WithMaxMessageSize(MaxMessage),
		pubsub.WithPeerOutboundQueueSize(buffer),
		pubsub.WithValidateQueueSize(buffer),
		// One worker keeps the messages of one master in order.
		pubsub.WithValidateWorkers(1),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithRawTracer(&g.lost),
	)
	if err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	self := opts.Host.ID()
	known := func(_ context.Context, _ peer.ID, msg *pubsub.Message) bool {
		from := msg.GetFrom()
		return from == self || opts.Known(from)
	}
	join := func(name string, handle func(peer.ID, []byte)) (*pubsub.Topic, error) {
		if err := g.ps.RegisterTopicValidator(name, known, pubsub.WithValidatorInline(true)); err != nil {
			return nil, err
		}
		topic, err := g.ps.Join(name)
		if err != nil {
			return nil, err
		}
		sub, err := topic.Subscribe(pubsub.WithBufferSize(buffer))
		if err != nil {
			return nil, err
		}
		g.readers.Add(1)
		go func() {
			defer g.readers.Done()
			for {
				msg, err := sub.Next(ctx)
				if err != nil {
					return // the context ended
				}
				if from := msg.GetFrom(); from != self {
					handle(from, msg.GetData())
				}
			}
		}()
		return topic, nil
	}
	if g.announce, err = join(announceTopic, opts.Announce); err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	if g.pulse, err = join(pulseTopic, opts.Pulse); err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	return g, nil
}

// Announce sends a message about new blocks to all masters.
func (g *Gossip) Announce(ctx context.Context, data []byte) error {
	return g.announce.Publish(ctx, data)
}

// Pulse sends a pulse to all masters.
func (g *Gossip) Pulse(ctx context.Context, data []byte) error { return g.pulse.Publish(ctx, data) }

// Lost is how many messages were dropped because a buffer was full: not
// delivered here, and not sent to a master.
func (g *Gossip) Lost() (in, out uint64) { return g.lost.in.Load(), g.lost.out.Load() }

// Holds reports whether pubsub has a stream to a master, or is about to open one.
func (g *Gossip) Holds(id peer.ID) bool { return slices.Contains(g.ps.ListPeers(""), id) }

// Carries reports whether messages travel on the streams of a protocol. Such a stream
// lasts as long as its connection: pubsub opens another one where it ends before, but
// then it knows of no subscription of the other side.
func Carries(id protocol.ID) bool {
	return strings.HasPrefix(string(id), "/meshsub/") || strings.HasPrefix(string(id), "/floodsub/")
}

// Close leaves the topics. The host is not closed.
func (g *Gossip) Close() error {
	g.cancel()
	g.readers.Wait()
	return nil
}

// dropTracer counts what pubsub drops without an error, and sees what arrives.
type dropTracer struct {
	noTracer
	in, out atomic.Uint64
	hop     func(peer.ID, bool)
	arrived func(peer.ID, []byte)
}

func (t *dropTracer) UndeliverableMessage(*pubsub.Message) { t.in.Add(1) }
func (t *dropTracer) DropRPC(*pubsub.RPC, peer.ID)         { t.out.Add(1) }

func (t *dropTracer) DeliverMessage(m *pubsub.Message) {
	if m.GetTopic() == announceTopic && t.arrived != nil {
		t.arrived(m.GetFrom(), m.GetData())
	}
	t.DuplicateMessage(m)
}

func (t *dropTracer) DuplicateMessage(m *pubsub.Message) {
	if m.GetFrom() == m.ReceivedFrom && t.hop != nil {
		t.hop(m.ReceivedFrom, m.GetTopic() == pulseTopic)
	}
}
