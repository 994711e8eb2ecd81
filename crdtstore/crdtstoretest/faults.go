package crdtstoretest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-varint"
	"google.golang.org/protobuf/proto"
)

// Move lets master i, which must not run, live at another address of the simulated
// network from its next start on. Packets to the old one get nowhere.
func (c *Cluster) Move(i int) {
	c.t.Helper()
	if c.net == nil {
		c.t.Fatal("the network of this cluster is not simulated")
	}
	c.place[i] = slices.Max(c.place) + 1
	c.addrs[i] = listenAddr(c.place[i])
}

// Copy adds a master that does not run yet, at an address of its own in the simulated
// network, with a copy of everything that master i keeps, which must not run. It returns
// the number of the copy.
func (c *Cluster) Copy(i int) int {
	c.t.Helper()
	n := len(c.dirs)
	c.dirs = append(c.dirs, c.t.TempDir())
	if err := os.CopyFS(c.dirs[n], os.DirFS(c.dirs[i])); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(c.dirs[n], "identity.key"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.stores, c.hosts, c.addrs = append(c.stores, nil), append(c.hosts, nil), append(c.addrs, "")
	c.mu.Unlock()
	c.place = append(c.place, 0)
	c.Move(n)
	c.t.Cleanup(func() { c.Stop(n) })
	return n
}

// Unsubscribe has master b believe that master a does not subscribe to a topic any more,
// while streams and connection stand and a knows nothing of it.
func (c *Cluster) Unsubscribe(a, b int, topic string) {
	c.t.Helper()
	rpc := &pb.RPC{Subscriptions: []*pb.RPC_SubOpts{{Subscribe: proto.Bool(false), Topicid: &topic}}}
	msg, err := proto.Marshal(rpc)
	if err != nil {
		c.t.Fatal(err)
	}
	said := false
	c.streams(a, b, "/meshsub/", func(s network.Stream) {
		_, err := s.Write(append(varint.ToUvarint(uint64(len(msg))), msg...))
		said = said || err == nil
	})
	if !said {
		c.t.Fatalf("master %d has no stream of messages to master %d", a, b)
	}
}

// ResetStreams breaks off the streams that master a has opened to master b and whose
// protocol begins with a text, while the connection stands. It returns how many those were.
func (c *Cluster) ResetStreams(a, b int, protocol string) int {
	n := 0
	c.streams(a, b, protocol, func(s network.Stream) {
		_ = s.Reset() // it is gone either way
		n++
	})
	return n
}

func (c *Cluster) streams(a, b int, protocol string, f func(network.Stream)) {
	c.mu.Lock()
	from, to := c.hosts[a], c.hosts[b].ID()
	c.mu.Unlock()
	for _, conn := range from.Network().ConnsToPeer(to) {
		for _, s := range conn.GetStreams() {
			if s.Stat().Direction == network.DirOutbound && strings.HasPrefix(string(s.Protocol()), protocol) {
				f(s)
			}
		}
	}
}
