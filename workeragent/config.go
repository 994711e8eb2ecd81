package workeragent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/paths"
)

// The ports of an explorer and of a compute service where none is given.
const (
	DefaultExplorerPort = 9002
	DefaultComputePort  = 9003
)

// Config configures an agent. Start from [DefaultConfig]: a zero field is not
// the default but means what its comment says.
type Config struct {
	// Explorers are the masters to report to, all of them, each on its own:
	// unix:///path, tcp://host:port, http(s)://host:port, host[:port] (port
	// 9002), or a master's edge address, /ip4/…/tcp/9005/p2p/ID. Without
	// /p2p/ID the master that is first met there is the one from then on. At least one
	// must be set; the agent learns of the others from the ones that answer.
	Explorers []string

	// NodeID names the node. Empty, which is the default: the id of the
	// agent's key. A node that takes a name keeps its key: masters refuse
	// another key for the same name.
	NodeID string

	// Compute is the compute service of this machine, JSON-RPC as HTTP POST
	// /rpc: the forms of Explorers (port 9003). Default
	// "unix://$HERO_SOCKET_DIR/hero_compute/rpc.sock", where HERO_SOCKET_DIR is
	// "~/hero/var/sockets" if not set; empty: there is none. While nothing
	// answers there, the node is listed without VMs.
	Compute string

	// AdvertiseCompute is the address at which masters call the compute service
	// itself, past the agent: the forms of Compute. The agent cannot see to it then
	// that an operation runs once. Empty, which is the default: they call the agent,
	// by its socket on this machine or by tunnels, and Compute is what is shown.
	AdvertiseCompute string

	// Labels are names and values by which people find the node. At most 64.
	Labels map[string]string

	// Location is where the machine stands. Default unknown.
	Location record.Location

	// DataDir is where the key, the boot number, the known masters and the status
	// socket are kept.
	// One process may use it at a time. Default
	// "~/hero/var/hero_explorer_agent"; must be set.
	DataDir string

	// HeartbeatInterval is the time between heartbeats to a master that has not
	// said otherwise; what a master answers overrides it. Default 10 s; at
	// least 10 ms, at most 1 h. The machine's figures are read as often.
	// Smaller values cost proportionally more requests.
	HeartbeatInterval time.Duration

	// ComputePoll is the time between two looks at the VMs. Default 2 s; at
	// least 100 ms. Smaller values show a new VM sooner and keep the compute
	// service busier. Give or take a tenth.
	ComputePoll time.Duration

	// ComputeGrace is for how long the VMs are still listed as they were after
	// the compute service stopped answering; from then on their state is
	// "unknown". Default 30 s; 0: at once. Larger values hide the restart of a
	// slow service and show stale states for longer.
	ComputeGrace time.Duration

	// Token is shown to masters that ask for one, as a bearer token. TokenFile
	// names a file that holds it, read once; at most one of them may be set.
	// Default none. Masters that the agent only learned of get it over plain HTTP
	// only where a configured address has that host, or is plain HTTP as well.
	Token     string
	TokenFile string

	// Version is the program's version, as shown to people. Default "dev".
	Version string

	direct bool // AdvertiseCompute was set; see resolve
}

// DefaultConfig returns a configuration that lacks only Explorers.
func DefaultConfig() Config {
	return Config{
		Compute:           "unix://$HERO_SOCKET_DIR/hero_compute/rpc.sock",
		DataDir:           "~/hero/var/hero_explorer_agent",
		HeartbeatInterval: 10 * time.Second,
		ComputePoll:       2 * time.Second,
		ComputeGrace:      30 * time.Second,
		Version:           "dev",
	}
}

// resolve expands paths, reads the token's file, fills in what the machine
// decides, and checks the rest.
func (c Config) resolve() (Config, error) {
	if c.Version == "" {
		c.Version = "dev"
	}
	for _, p := range []struct {
		field string
		path  *string
	}{{"data-dir", &c.DataDir}, {"token-file", &c.TokenFile}} {
		path, err := paths.Absolute(*p.path)
		if err != nil {
			return c, configErrorf(p.field, "%v", err)
		}
		*p.path = path
	}
	c.Explorers = append([]string(nil), c.Explorers...)
	type address struct {
		field string
		addr  *string
	}
	addrs := []address{{"compute", &c.Compute}, {"advertise-compute", &c.AdvertiseCompute}}
	for i := range c.Explorers {
		addrs = append(addrs, address{"explorers", &c.Explorers[i]})
	}
	for _, a := range addrs {
		*a.addr = strings.TrimSpace(*a.addr)
		if path, ok := strings.CutPrefix(*a.addr, "unix://"); ok {
			path, err := paths.Expand(path)
			if err != nil {
				return c, configErrorf(a.field, "%v", err)
			}
			*a.addr = "unix://" + path
		}
	}
	if c.direct = c.AdvertiseCompute != ""; !c.direct {
		c.AdvertiseCompute = c.Compute
	}
	if err := c.validate(); err != nil {
		return c, err
	}
	if c.AdvertiseCompute != "" {
		// Masters do not know which port we take for the default.
		ep, err := parseAddress("advertise-compute", c.AdvertiseCompute, DefaultComputePort)
		if err != nil {
			return c, err
		}
		c.AdvertiseCompute = ep.URL
	}
	if c.TokenFile != "" {
		token, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return c, configErrorf("token-file", "cannot be read: %v", err)
		}
		if c.Token = strings.TrimSpace(string(token)); c.Token == "" {
			return c, configErrorf("token-file", "%s is empty; write the token into it", c.TokenFile)
		}
	}
	return c, nil
}

// validate returns a [record.FieldError] that names the flag whose value
// cannot be used.
func (c *Config) validate() error {
	if c.DataDir == "" {
		return configErrorf("data-dir", "is empty; name a directory")
	}
	if len(c.Explorers) == 0 {
		return configErrorf("explorers", "is empty; name at least one, such as 127.0.0.1:9002")
	}
	for _, addr := range c.Explorers {
		if _, err := parseEndpoint(addr); err != nil {
			return err
		}
	}
	if c.NodeID != "" {
		if err := record.ValidNodeID(c.NodeID); err != nil {
			return named(err)
		}
	}
	if c.Compute != "" {
		if _, err := parseAddress("compute", c.Compute, DefaultComputePort); err != nil {
			return err
		}
	}
	if c.AdvertiseCompute != "" {
		if _, err := parseAddress("advertise-compute", c.AdvertiseCompute, DefaultComputePort); err != nil {
			return err
		}
	}
	if c.HeartbeatInterval < minInterval || c.HeartbeatInterval > maxInterval {
		return configErrorf("heartbeat-interval", "is %v; must lie between %v and %v",
			c.HeartbeatInterval, minInterval, maxInterval)
	}
	if c.ComputePoll < 100*time.Millisecond {
		return configErrorf("compute-poll", "is %v; must be at least 100ms", c.ComputePoll)
	}
	if c.ComputeGrace < 0 {
		return configErrorf("compute-grace", "is %v; must not be negative", c.ComputeGrace)
	}
	if c.Token != "" && c.TokenFile != "" {
		return configErrorf("token-file", "and the token itself are both given; give one of them")
	}
	// Everything else goes into the report as it is; what a master would refuse
	// is refused here, where the person who can change it looks.
	r := record.Report{NodeID: "x"}
	r.Labels, r.Location = c.Labels, c.Location
	r.SocketPath, r.Version = c.AdvertiseCompute, c.Version
	return named(r.Validate())
}

// named calls a field of a report as it is called here.
func named(err error) error {
	var f *record.FieldError
	if !errors.As(err, &f) {
		return err
	}
	name := strings.TrimPrefix(f.Field, "location.")
	switch name {
	case "node_id":
		name = "node-id"
	case "socket_path":
		name = "advertise-compute"
	}
	return &record.FieldError{Field: name, Problem: f.Problem}
}

// parseAddress parses the address of a service.
func parseAddress(field, addr string, port int) (client.Endpoint, error) {
	if addr == "" {
		return client.Endpoint{}, configErrorf(field, "has an empty entry; remove it")
	}
	if isMultiaddr(addr) {
		return client.Endpoint{}, configErrorf(field, "%q is a libp2p multiaddr; use host:port, such as tcp://host:%d", addr, port)
	}
	if addr[0] == '/' {
		return client.Endpoint{}, configErrorf(field, "%q: write a socket as unix://%s", addr, addr)
	}
	ep, err := client.Parse(addr, port)
	if err != nil {
		return ep, configErrorf(field, "%v", err)
	}
	return ep, nil
}

// ExpandPath expands a leading "~" to the home directory and a leading
// "$HERO_SOCKET_DIR" to that variable, or to "~/hero/var/sockets" where it is
// not set. New does it for every path of a Config.
func ExpandPath(path string) (string, error) { return paths.Expand(path) }

func configErrorf(field, format string, args ...any) error {
	return &record.FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}
