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

// Handler takes what the other masters say.
type Handler interface {
	// Announced and Pulsed take announcements and pulses, each one at a time, in the order in
	// which they come in. They may take their time within what the buffers hold.
	Announced(from peer.ID, data []byte)
	Pulsed(from peer.ID, data []byte)
	// Arrived takes an announcement when it comes in, before it waits for its turn. It must
	// not block.
	Arrived(from peer.ID, data []byte)
	// Hop is called when a message comes straight from its author, also where it came by way
	// of others before. It must not block.
	Hop(from peer.ID, pulse bool)
}

// Options configure a Gossip.
type Options struct {
	Host    host.Host // streams only between admitted masters
	Known   func(peer.ID) bool
	Logger  *slog.Logger
	Handler Handler
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
	g := &Gossip{cancel: cancel, lost: dropTracer{handler: opts.Handler}}
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
	if g.announce, err = join(announceTopic, opts.Handler.Announced); err != nil {
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	if g.pulse, err = join(pulseTopic, opts.Handler.Pulsed); err != nil {
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
	handler Handler
}

func (t *dropTracer) UndeliverableMessage(*pubsub.Message) { t.in.Add(1) }
func (t *dropTracer) DropRPC(*pubsub.RPC, peer.ID)         { t.out.Add(1) }

func (t *dropTracer) DeliverMessage(m *pubsub.Message) {
	if m.GetTopic() == announceTopic {
		t.handler.Arrived(m.GetFrom(), m.GetData())
	}
	t.DuplicateMessage(m)
}

func (t *dropTracer) DuplicateMessage(m *pubsub.Message) {
	if m.GetFrom() == m.ReceivedFrom {
		t.handler.Hop(m.ReceivedFrom, m.GetTopic() == pulseTopic)
	}
}
