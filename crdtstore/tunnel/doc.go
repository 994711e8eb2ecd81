// Package tunnel lets masters reach nodes that can only dial out. An agent keeps a
// connection to a master or two, over libp2p with Noise and Yamux, and the masters open
// streams on it, each of which is a net.Conn to the agent. A master without a
// connection to a node goes through one that has one.
//
// The master's end is a [Host]: agents connect to it, call methods ([HostConfig.Answer])
// and open tunnels for their nodes; [Host.Dial] gives a connection to a node, and
// [Host.Splice] joins what another master has asked for by [Through]. The agent's end is
// a [Client]: it is the net.Listener on which all these connections arrive, and
// [Client.Master] is one master of those it can ask and open a tunnel to.
//
// Who is at the other end is proven by the connection: the agent dials the master's
// peer id, and the master hands the agent's, which follows from the key that signs the
// node's account, to [HostConfig.Admit]. What goes over the connections is up to the
// programs; the explorer and its agents speak HTTP/1.1 on them.
//
// An agent shows that it is there every few seconds, and the master that it hears it.
// Where one of them is not heard for a while the tunnel is closed on both sides,
// whatever TCP makes of it.
//
// All types may be used from several goroutines at once.
package tunnel
