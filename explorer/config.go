package explorer

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/paths"
)

// The ports of a master where none is given.
const (
	DefaultUIPort   = 9001
	DefaultRPCPort  = 9002
	DefaultMeshPort = 9004
	DefaultEdgePort = 9005
)

// Config configures a master. Start from [DefaultConfig]: a zero field is not
// the default but means what its comment says.
type Config struct {
	// DataDir is where records, identity and tokens are kept. One process may
	// use it at a time. Default "~/hero/var/hero_explorer"; must be set.
	DataDir string

	// RPCAddr is the host:port of the API. Default "127.0.0.1:9002"; empty: no
	// TCP listener. Beyond loopback see Auth.
	RPCAddr string

	// RPCSocket is the unix socket of the API, which only this user can open.
	// Default "$HERO_SOCKET_DIR/hero_compute/explorer_rpc.sock", where
	// HERO_SOCKET_DIR is "~/hero/var/sockets" if not set; empty: no socket.
	RPCSocket string

	// UIAddr is the host:port of the page. Default "127.0.0.1:9001"; empty: no
	// page.
	UIAddr string

	// MeshAddr is where other masters reach this one: host:port or multiaddr. No host,
	// 0.0.0.0 and :: stand for all addresses, IPv4 and IPv6.
	// Empty, which is the default: 0.0.0.0:9004 where there are peers or a
	// secret, and no listener at all in single-master mode.
	MeshAddr string

	// EdgeAddr is where agents connect to, so that nodes which can only dial out can be
	// reached: host:port, as in MeshAddr, or "off". Empty, which is the default: off in single-master
	// mode, else 0.0.0.0:9005, or another port where that one is taken.
	EdgeAddr string

	// PeerMasters are other masters: IP, host, host:port, or multiaddr with or
	// without /p2p/ID. May name this master itself, so that all can get the same
	// list. Empty, which is the default: single-master mode.
	PeerMasters []string

	// Advertise are addresses that other masters, agents and browsers should
	// use. A host or an IP stands for all ports of this master; host:port or a
	// multiaddr is where masters connect; "rpc=URL" and "ui=URL" are the API
	// and the page. Empty, which is the default: the addresses listened on.
	// Names given here are also accepted in the Host header of requests that
	// are trusted, as those of a reverse proxy on this machine; IP addresses,
	// localhost and the hostname always are.
	Advertise []string

	// ClusterSecret admits masters: all of them have the same. At most one of
	// it and ClusterSecretFile, a file that holds it, may be set. Empty, which
	// is the default: only masters from addresses in PeerMasters are admitted.
	ClusterSecret     string
	ClusterSecretFile string

	// Auth says who must show a token. Default AuthAuto; empty: the same.
	Auth AuthMode

	// RequireSigned refuses nodes whose reports are not signed. Default false.
	RequireSigned bool

	// HeartbeatInterval is what agents are told to keep to. Default 10 s, must
	// be set. Smaller values find dead nodes sooner and cost proportionally
	// more requests.
	HeartbeatInterval time.Duration

	// OfflineAfter is how long a node may be silent before it counts as
	// offline. Default 30 s; must be greater than HeartbeatInterval. Larger
	// values forgive more lost heartbeats and find dead nodes later.
	OfflineAfter time.Duration

	// Retention is how long a silent or removed node is remembered. Default
	// 720 h; must be at least OfflineAfter. Memory and disk grow with it.
	Retention time.Duration

	// Name is what people call this master. Empty, which is the default: the
	// hostname.
	Name string

	// Version is the program's version, as shown to people and other masters.
	// Default "dev".
	Version string

	// Aliases maps other names of methods onto those of this API, such as
	// "ExplorerService.heartbeat" onto "node_heartbeat". Default none.
	Aliases map[string]string

	// ProxyMethods are methods of the nodes' compute service that proxy may
	// call besides [ProxyMethods]. Default none. Whatever is added here can be
	// called on every node by whoever may make VM calls.
	ProxyMethods []string

	// What follows is for programs that embed a server.

	// Store is a store that the program has opened, and closes when the server has
	// stopped. nil, which is the default: the server opens one in DataDir and closes
	// it. With a Store, PeerMasters, MeshAddr, ClusterSecret, Name, RequireSigned,
	// OfflineAfter and Retention are not looked at, for the store has its own, as it has
	// the endpoints and settings that other masters are told; EdgeAddr is off unless it
	// is set. DataDir, where the tokens are, should be the directory of the store.
	Store *crdtstore.Store

	// Listener serves the API in the place of RPCAddr. The server closes it when it
	// stops, or fails to start. nil, which is the default: it listens on RPCAddr. See
	// [Server.Handler] for programs that have an HTTP server.
	Listener net.Listener

	// Registerer gets the metrics of the server and its store from Start to Stop; those
	// of Go and of the process are not among them. nil, which is the default: they are
	// at /metrics only, which has them in any case.
	Registerer prometheus.Registerer

	// MaxRestore is how many bytes a backup may have that is restored. Default
	// 4 GiB; 0: the same. The disk must take up to four of them at a time.
	MaxRestore int64
}

// DefaultConfig returns the configuration of a single master on this machine.
func DefaultConfig() Config {
	return Config{
		DataDir:           "~/hero/var/hero_explorer",
		RPCAddr:           "127.0.0.1:" + strconv.Itoa(DefaultRPCPort),
		RPCSocket:         "$HERO_SOCKET_DIR/hero_compute/explorer_rpc.sock",
		UIAddr:            "127.0.0.1:" + strconv.Itoa(DefaultUIPort),
		Auth:              AuthAuto,
		HeartbeatInterval: 10 * time.Second,
		OfflineAfter:      30 * time.Second,
		Retention:         720 * time.Hour,
		Version:           "dev",
		MaxRestore:        defaultMaxRestore,
	}
}

// ExpandPath expands a leading "~" to the home directory and a leading
// "$HERO_SOCKET_DIR" to that variable, or to "~/hero/var/sockets" where it is
// not set. New does it for every path of a Config.
func ExpandPath(path string) (string, error) { return paths.Expand(path) }

// resolve expands paths, reads the secret's file and fills in what is empty
// for a default that this machine decides.
func (c Config) resolve() (Config, error) {
	for _, p := range []struct {
		field string
		path  *string
	}{{"data-dir", &c.DataDir}, {"rpc-socket", &c.RPCSocket}, {"cluster-secret-file", &c.ClusterSecretFile}} {
		path, err := paths.Absolute(*p.path)
		if err != nil {
			return c, configErrorf(p.field, "%v", err)
		}
		*p.path = path
	}
	if c.Auth == "" {
		c.Auth = AuthAuto
	}
	if c.MaxRestore <= 0 {
		c.MaxRestore = defaultMaxRestore
	}
	if c.Name == "" {
		c.Name, _ = os.Hostname() // the store names itself where that fails
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Listener != nil {
		c.RPCAddr = c.Listener.Addr().String()
	}
	if c.Store != nil {
		c.OfflineAfter = c.Store.OfflineAfter()
		c.Retention = max(c.Retention, c.OfflineAfter)
	}
	if err := c.validate(); err != nil {
		return c, err
	}
	if c.ClusterSecretFile != "" {
		secret, err := os.ReadFile(c.ClusterSecretFile)
		if err != nil {
			return c, configErrorf("cluster-secret-file", "cannot be read: %v", err)
		}
		if c.ClusterSecret = strings.TrimSpace(string(secret)); c.ClusterSecret == "" {
			return c, configErrorf("cluster-secret-file", "%s is empty; write the secret into it", c.ClusterSecretFile)
		}
	}
	return c, nil
}

// alone reports whether this is single-master mode, in which nothing listens
// but API and page.
func (c *Config) alone() bool {
	return len(c.PeerMasters) == 0 && c.ClusterSecret == "" && c.ClusterSecretFile == "" && c.MeshAddr == ""
}

// validate returns a [crdtstore.FieldError] that names the flag whose value
// cannot be used.
func (c *Config) validate() error {
	if c.DataDir == "" {
		return configErrorf("data-dir", "is empty; name a directory")
	}
	// sockaddr_un has room for 107 bytes and a zero on Linux.
	if len(c.RPCSocket) > 107 {
		return configErrorf("rpc-socket", "has %d bytes, the system allows 107; choose a shorter path", len(c.RPCSocket))
	}
	for _, a := range []struct {
		field, addr string
		skip        bool
	}{
		{"rpc-addr", c.RPCAddr, c.RPCAddr == "" || c.Listener != nil},
		{"ui-addr", c.UIAddr, c.UIAddr == ""},
		{"mesh-addr", c.MeshAddr, c.MeshAddr == "" || c.MeshAddr[0] == '/'},
		{"edge-addr", c.EdgeAddr, c.EdgeAddr == "" || c.EdgeAddr == "off"},
	} {
		if a.skip {
			continue
		}
		if err := validHostPort(a.field, a.addr); err != nil {
			return err
		}
	}
	for i, p := range c.PeerMasters {
		if strings.TrimSpace(p) == "" {
			return configErrorf("peer-masters", "entry %d is empty; remove it", i+1)
		}
	}
	if _, err := parseAdvertise(c.Advertise); err != nil {
		return err
	}
	if c.ClusterSecret != "" && c.ClusterSecretFile != "" {
		return configErrorf("cluster-secret-file", "and the secret itself are both given; give one of them")
	}
	switch c.Auth {
	case AuthAuto, AuthOff, AuthAll:
	default:
		return configErrorf("auth", "is %q; must be auto, off or all", c.Auth)
	}
	if c.HeartbeatInterval < 10*time.Millisecond {
		return configErrorf("heartbeat-interval", "is %v; must be at least 10ms", c.HeartbeatInterval)
	}
	if c.OfflineAfter <= c.HeartbeatInterval {
		return configErrorf("offline-after", "is %v; must be greater than heartbeat-interval (%v)", c.OfflineAfter, c.HeartbeatInterval)
	}
	if c.Retention < c.OfflineAfter {
		return configErrorf("retention", "is %v; must be at least offline-after (%v)", c.Retention, c.OfflineAfter)
	}
	if len(c.Name) > 128 || strings.ContainsFunc(c.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return configErrorf("name", "must be at most 128 printable characters")
	}
	for _, alias := range slices.Sorted(maps.Keys(c.Aliases)) {
		if bareName(alias) == "" || knownMethod(alias) {
			return configErrorf("aliases."+alias, "is a method itself, or no name at all; choose another alias")
		}
		if !knownMethod(c.Aliases[alias]) {
			return configErrorf("aliases."+alias, "stands for %q, which is no method; see rpc.discover for their names", c.Aliases[alias])
		}
	}
	for i, m := range c.ProxyMethods {
		if strings.TrimSpace(m) != m || m == "" {
			return configErrorf("proxy-methods", "entry %d is not a method name", i+1)
		}
	}
	return nil
}

func validHostPort(field, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return configErrorf(field, "%q is not host:port, such as 127.0.0.1:9002", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return configErrorf(field, "%q has no port between 0 and 65535", addr)
	} else if n == 0 && field == "advertise" {
		return configErrorf(field, "%q has port 0, which nobody can reach", addr)
	}
	return nil
}

func configErrorf(field, format string, args ...any) error {
	return &crdtstore.FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}
