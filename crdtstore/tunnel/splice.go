package tunnel

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/multiformats/go-varint"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
)

// Through asks the master at the other end of a connection, which serves it by Splice,
// to join it to a node whose tunnel it holds. When it returns without error the
// connection leads to the node. Errors: ErrNone where the other holds no tunnel, and
// others; nothing was sent to the node then, and the connection is of no more use.
func Through(ctx context.Context, conn net.Conn, node string) error {
	// The other master needs a moment to find out that the node does not answer.
	lift := within(ctx, conn, dialTimeout+time.Second)
	defer lift()
	if len(node) > maxNode {
		return ErrNone
	}
	if _, err := conn.Write(append(varint.ToUvarint(uint64(len(node))), node...)); err != nil {
		return err
	}
	return await(conn)
}

// Splice serves a connection on which another master has called Through, to its end.
func (h *Host) Splice(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	node, err := readName(conn)
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	to, err := h.Dial(h.ctx, node)
	if err != nil {
		h.log.Debug("cannot splice", "node", node, "err", err)
		_, _ = conn.Write([]byte{refused})
		return
	}
	defer to.Close()
	if _, err := conn.Write([]byte{ready}); err != nil {
		return
	}
	join(conn, to)
}

// readName reads a node id behind its length.
func readName(r io.Reader) (string, error) {
	n, err := varint.ReadUvarint(&oneByte{Reader: r})
	if err != nil {
		return "", err
	}
	if n > maxNode {
		return "", fmt.Errorf("node id of %d bytes", n)
	}
	name := make([]byte, n)
	_, err = io.ReadFull(r, name)
	return string(name), err
}

// join copies both ways. The end of one direction is passed on; when a direction
// breaks, both end.
func join(a, b net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(a, b)
	}()
	pass(b, a)
	<-done
}

// pass copies until the end of from and passes the end on.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	half, ok := to.(interface{ CloseWrite() error })
	if err == nil && ok {
		err = half.CloseWrite()
	}
	if err != nil || !ok {
		p2p.Abort(to)
		p2p.Abort(from)
	}
}
