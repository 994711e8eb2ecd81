package house

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "forge.ourworld.tf/lhumina_code/hero_explorer/"

// ban says what a package must not link, directly or not, and why.
type ban struct {
	pkg string // below the module
	// banned are import paths; with all that is below them.
	banned map[string]string
	// but are those that it may link all the same.
	but []string
}

var bans = []ban{
	{pkg: "crdtstore/record", banned: map[string]string{
		strings.TrimSuffix(module, "/"): "the merge core stands below everything else",
		"github.com":                    "the merge core is values in, values out",
		"golang.org/x":                  "the merge core is values in, values out",
		"net":                           "the merge core does no I/O",
		"os/exec":                       "the merge core does no I/O",
		"log":                           "the merge core has no logger",
	}, but: []string{
		module + "crdtstore/internal/wire", // values in, values out too: how bytes become fields
	}},
	{pkg: "crdtstore", banned: map[string]string{
		module + "explorer":                   "the library knows no server",
		module + "workeragent":                "the library knows no agent",
		"github.com/spf13":                    "a library has no flags",
		"github.com/goccy/go-yaml":            "a library has no config file",
		"github.com/ipfs/boxo/bitswap":        "blocks travel by our own protocol, 20 times faster",
		"github.com/hsanjuan/ipfs-lite":       "blocks travel by our own protocol, 20 times faster",
		"github.com/libp2p/go-libp2p-kad-dht": "masters know each other",
	}},
	{pkg: "cmd/explorer", banned: map[string]string{
		module + "workeragent":                              "master and agent know nothing of each other",
		"go.uber.org/fx":                                    "the mesh host is assembled from its parts, which saves 14 MB",
		"github.com/quic-go/quic-go":                        "the mesh speaks TCP; QUIC links 5 MB and costs more per idle connection",
		"github.com/pion":                                   "nothing speaks WebRTC",
		"github.com/libp2p/go-libp2p/p2p/transport/quic":    "the mesh speaks TCP",
		"github.com/libp2p/go-libp2p/p2p/discovery/mdns":    "masters are named, not found by chance",
		"github.com/libp2p/go-libp2p/p2p/net/swarm/testing": "it is for tests",
		"testing":             "it is for tests",
		"pgregory.net/rapid":  "it is for tests",
		"github.com/chromedp": "it is for tests",
		"github.com/stretchr": "it is for tests",
		"net/http/httptest":   "it is for tests",
		"net/http/pprof":      "nothing is served that nobody asked for",
	}},
	{pkg: "cmd/workeragent", banned: map[string]string{
		module + "crdtstore/internal/epoch":   "an agent keeps no records",
		module + "crdtstore/internal/table":   "an agent keeps no records",
		module + "crdtstore/internal/replica": "an agent keeps no records",
		module + "crdtstore/internal/gossip":  "an agent is no master",
		"github.com/libp2p/go-libp2p-pubsub":  "an agent is no master",
		"github.com/cockroachdb":              "an agent keeps no records",
		"github.com/ipfs/go-ds-crdt":          "an agent keeps no records",
		"go.uber.org/fx":                      "a whole libp2p is too heavy to run beside every node",
		"github.com/quic-go/quic-go":          "a whole libp2p is too heavy to run beside every node",
		"github.com/pion":                     "nothing speaks WebRTC",
		"testing":                             "it is for tests",
		"net/http/pprof":                      "nothing is served that nobody asked for",
	}},
}

func TestDependencies(t *testing.T) {
	for _, b := range bans {
		t.Run(b.pkg, func(t *testing.T) {
			self := module + b.pkg
			for _, dep := range deps(t, self) {
				if slices.Contains(b.but, dep) {
					continue
				}
				for banned, why := range b.banned {
					if dep != self && (dep == banned || strings.HasPrefix(dep, banned+"/")) {
						t.Errorf("%s links %s; %s", b.pkg, dep, why)
					}
				}
			}
		})
	}
}

// deps returns all that a package imports, directly or not.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// What other programs may import is crdtstore; what the repository's own
// packages import of each other points one way.
func TestImportsPointOneWay(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		from, to, _ := strings.Cut(strings.TrimSpace(line), " ")
		from, to = strings.TrimPrefix(from, module), strings.TrimPrefix(to, module)
		within := func(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }
		libp2p := strings.HasPrefix(to, "github.com/libp2p/") || strings.HasPrefix(to, "github.com/ipfs/")
		for _, rule := range []struct {
			broken bool
			why    string
		}{
			{within(from, "crdtstore/record") && strings.HasPrefix(to, "crdtstore") && to != "crdtstore/internal/wire", "the merge core stands below everything else; wire is as pure as it is"},
			{from == "crdtstore/internal/wire" && strings.HasPrefix(to, "crdtstore"), "wire knows no message"},
			{from == "crdtstore/internal/backup" && within(to, "crdtstore") && to != "crdtstore/record", "a file holds records, wherever they come from"},
			{from == "crdtstore/internal/closing" && within(to, "crdtstore") && to != "crdtstore/internal/replica", "of what is closed it knows nothing, and of errors only that which callers expect"},
			{from == "crdtstore/internal/conflicts" && within(to, "crdtstore/internal") && to != "crdtstore/internal/table", "who was turned away is found in a report and what was known before"},
			{from == "crdtstore/internal/page" && within(to, "crdtstore/internal"), "a list knows nothing of what is listed"},
			{from == "crdtstore/internal/query" && within(to, "crdtstore/internal") && to != "crdtstore/internal/page" && to != "crdtstore/internal/table", "a query reads the table, and asks its Source for all else"},
			{from == "crdtstore/internal/watch" && within(to, "crdtstore/internal") && to != "crdtstore/internal/page" && to != "crdtstore/internal/table" && to != "crdtstore/internal/liveness", "what is watched is asked of a Grid"},
			{within(from, "crdtstore") && from != "crdtstore" && to == "crdtstore/internal/events", "what happened is for people; nothing that decides may read it"},
			{from == "crdtstore/internal/events" && within(to, "crdtstore/internal") && to != "crdtstore/internal/page" && to != "crdtstore/internal/table", "the event log is fed, and asks its Options for all else"},
			{from == "crdtstore/internal/membership" && within(to, "crdtstore/internal") && to != "crdtstore/internal/liveness", "who lives is decided by what masters say; mesh, history and runs read it"},
			{(from == "crdtstore/internal/p2p" || from == "crdtstore/internal/liveness") && to == "crdtstore/internal/runs", "which run counts is asked through p2p.Runs"},
			{from == "crdtstore/internal/preservation" && within(to, "crdtstore/internal") && to != "crdtstore/internal/liveness" && to != "crdtstore/internal/membership" && to != "crdtstore/internal/table", "silence is judged by the nodes, by who heard them and by the limits of masters; a Publisher has the rest know"},
			{from == "crdtstore/internal/membership" && libp2p, "masters are known by their ids, however they are reached"},
			{within(from, "crdtstore/internal") && to == "crdtstore/internal/cluster", "the parts know nothing of the network and the goroutines that bring them together"},
			{within(from, "crdtstore/internal") && to == "crdtstore", "crdtstore is made of its internal packages, not the other way round"},
			{within(from, "crdtstore") && (within(to, "explorer") || within(to, "workeragent") || within(to, "cmd")), "the library knows neither server nor agent"},
			{within(from, "explorer") && (within(to, "workeragent") || within(to, "cmd")), "master and agent know nothing of each other"},
			{within(from, "workeragent") && within(to, "explorer") && to != "explorer/client" && to != "explorer/jsonrpc", "of a master, an agent knows only how to call it"},
			{within(from, "workeragent") && to == "crdtstore", "an agent keeps no records"},
			{(within(from, "explorer") || within(from, "workeragent") || within(from, "cmd")) && libp2p, "crdtstore offers what is needed of libp2p and IPFS"},
			{within(from, "crdtstore") && from != "crdtstore/metrics" && strings.HasPrefix(to, "github.com/prometheus/"), "the library returns figures; crdtstore/metrics makes metrics of them"},
			{strings.HasPrefix(to, "github.com/go-json-experiment/") && from != "explorer/jsonrpc", "what is to become encoding/json/v2 may still change, so one package uses it"},
			{within(from, "examples") && within(to, "cmd"), "an example shows what others can do"},
		} {
			if rule.broken {
				t.Errorf("%s imports %s; %s", from, to, rule.why)
			}
		}
	}
}

// The event log is fed from many places and read in one, which answers people. Whoever
// decided by it would not work without it.
func TestEventLogIsReadByNobodyWhoDecides(t *testing.T) {
	const reader = "crdtstore/events.go"
	reads := map[string]bool{} // what returns something of the log
	calls := map[string]string{}
	goFiles(t, func(path string, src []byte) {
		dir := filepath.ToSlash(filepath.Dir(path))
		if isTest(path) || path == reader || dir != "crdtstore" && dir != "crdtstore/internal/events" {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, 0)
		if err != nil {
			t.Error(err)
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if dir != "crdtstore" && n.Recv != nil && n.Type.Results != nil {
					reads[n.Name.Name] = true
				}
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.SelectorExpr); ok && dir == "crdtstore" && (of.Sel.Name == "events" || of.Sel.Name == "splits") {
					calls[n.Sel.Name] = path
				}
			}
			return true
		})
	})
	if len(reads) == 0 || len(calls) == 0 {
		t.Errorf("found what reads %v and calls %v", reads, calls)
	}
	for name, path := range calls {
		if reads[name] {
			t.Errorf("%s calls %s of the event log; only %s reads it, for people", path, name, reader)
		}
	}
}
