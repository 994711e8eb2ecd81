// Package workeragent is the process that runs beside a compute node: it tells
// every explorer of the grid what this machine is, that it lives, and which VMs
// run on it.
//
// [Run] does so until its context ends; [New], [Agent.Start] and [Agent.Stop] do
// the same in steps. A [Config] names the explorers; [DefaultConfig] has the
// rest. [FetchStatus] asks a running agent on this machine how it stands.
//
// # The account
//
// The agent gives one account of the node at a time: its profile (hostname,
// capacity, location, labels, where the compute service answers) and its VMs. An
// account is complete, carries the version (boot, seq), and is signed with the
// agent's key. It is built once and sent to every explorer in the same words, so
// that whichever explorer hears it first, the others learn nothing new from it.
// A change of the profile or of the VMs makes a new account. Everything else,
// usage and uptime, goes with the heartbeats, which are small and not signed.
//
// Boot is chosen once per start and only ever grows; seq grows with every new
// account and every heartbeat, whichever explorer they go to.
//
// # Explorers
//
// Each explorer has a goroutine, a connection and a pace of its own; one that is
// slow, dead or hostile delays no other. The agent registers first and sends no
// heartbeat before it was accepted. It keeps to the interval that the explorer
// answers, give or take a tenth. It registers again when the account has changed
// or the explorer asks for it. What fails is tried again for ever, after random
// times that grow to the heartbeat interval, or to minutes where the explorer
// refuses the node. The log has one line per change of state, not per failure.
//
// Answers name the masters of the grid. One to which no configured address leads
// gets a link of its own, after it has said who it is; where two addresses lead to
// one master, one of them stands by. Masters that are learned are remembered over
// restarts, and forgotten when they are named and heard no more.
//
// # VMs
//
// The list comes from the local compute service by its method list_vms. The
// agent gives no secret and passes none on. A compute service that hides VMs
// whose secret does not match, as hero_compute does, therefore has to list the
// VMs, without their secrets, to a caller on its own machine that gives none;
// VMs that it hides are not seen on the grid. While the service is absent the
// node is listed without VMs. When it stops answering, the VMs are listed as they
// were for a grace time, and then with the state "unknown": they may well run on,
// and their slices are not free.
//
// # Calls
//
// Masters call the compute service by way of the agent: over a socket in its data
// directory where they are on this machine, else over tunnels, connections that the
// agent keeps to two masters. So nothing on this machine has to listen. A call that
// names its operation is carried out once, however often and by whichever masters it is
// asked for; the agent remembers the answer.
//
// # Files
//
// In the data directory: key.pem (the identity, see package identity), boot (the
// last boot number), masters.json (the masters learned of), operations (what was asked
// for by name, and the answers), agent.sock (GET /status, for this user only) and
// compute.sock (where masters on this machine call).
package workeragent
