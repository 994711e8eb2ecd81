package explorer

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// pipeEnd is a connection that looks like one over loopback.
type pipeEnd struct{ net.Conn }

func (pipeEnd) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9002} }
func (pipeEnd) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000} }

// beatStore takes heartbeats and reports as fast as a map does, so that what is measured
// is the server.
type beatStore struct{ *fakeStore }

func (b beatStore) Report(context.Context, crdtstore.Report) (crdtstore.Receipt, error) {
	return crdtstore.Receipt{Accepted: true}, nil
}

func (b beatStore) Beat(crdtstore.Beat) (crdtstore.BeatResult, error) {
	return crdtstore.BeatResult{Accepted: true}, nil
}

func benchServer(b *testing.B) *Server {
	s, err := New(testConfig(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	fake := newFakeStore()
	for i := range 2 {
		fake.masters = append(fake.masters, crdtstore.Master{
			ID: fmt.Sprintf("12D3KooWExampleExampleExampleExampleExampleExample%d", i), Name: "beta", Status: crdtstore.MasterAlive,
			RPCURLs: []string{"http://10.0.0.2:9002"}, UIURLs: []string{"http://10.0.0.2:9001"}, MeshAddrs: []string{"/ip4/10.0.0.2/tcp/9004"},
		})
	}
	s.open = func(context.Context, crdtstore.Config) (store, error) { return beatStore{fake}, nil }
	if err := s.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

const beatBody = `{"jsonrpc":"2.0","id":1,"method":"ExplorerService.node_heartbeat","params":{"node_id":"12D3KooWExampleExampleExampleExample","boot":1795332962178,"seq":42,"usage":{"cru":1.5,"mru":4294967296,"sru":0,"hru":0,"slices":1},"uptime_s":86400}}`

func hammer(b *testing.B, url, body string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	for b.Loop() {
		resp, err := client.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status)
		}
	}
}

// BenchmarkHeartbeat is one heartbeat over a kept connection; the client's part
// is in it. BenchmarkBareHandler is the same with a server that does nothing.
func BenchmarkHeartbeat(b *testing.B) {
	s := benchServer(b)
	hammer(b, "http://"+s.RPCAddr().String()+"/rpc", beatBody)
}

func BenchmarkBareHandler(b *testing.B) {
	// The same bytes go over the wire.
	answer := benchServer(b).rpc.Answer(context.Background(), nil, []byte(beatBody))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer)
	})}
	go srv.Serve(l)
	defer srv.Close()
	hammer(b, "http://"+l.Addr().String()+"/rpc", beatBody)
}

// reportBody is a report of a node with ten VMs.
var reportBody = `{"jsonrpc":"2.0","id":1,"method":"ExplorerService.register_node","params":{"node_id":"12D3KooWExampleExampleExampleExample","boot":1795332962178,"seq":42,"hostname":"node-17.example.org","socket_path":"unix:///home/hero/hero/var/sockets/hero_compute/rpc.sock","mycelium_ip":"5f4::17","version":"1.2.3","location":{"country":"Belgium","city":"Ghent","latitude":51.05,"longitude":3.72},"total":{"cru":64,"mru":274877906944,"sru":4000787030016,"hru":0},"slices_total":32,"labels":{"rack":"r7","pool":"batch"},"vms":[` +
	strings.Repeat(`,{"sid":"vm-0123456789abcdef","name":"web-frontend","state":"running","cpu":2,"memory":4294967296,"ip":"10.1.2.3"}`, 10)[1:] +
	`],"usage":{"cru":1.5,"mru":4294967296,"sru":0,"hru":0,"slices":1},"uptime_s":86400}}`

// BenchmarkHeartbeatNoNetwork is what the server itself adds.
func BenchmarkHeartbeatNoNetwork(b *testing.B) { benchAnswer(b, beatBody) }

// BenchmarkRegisterNodeNoNetwork is the same of a report.
func BenchmarkRegisterNodeNoNetwork(b *testing.B) { benchAnswer(b, reportBody) }

func benchAnswer(b *testing.B, request string) {
	s := benchServer(b)
	ctx := connCaller(context.Background(), pipeEnd{})
	body := []byte(request)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		if out = s.rpc.Answer(ctx, out[:0], body); len(out) < 100 {
			b.Fatalf("%s", out)
		}
	}
}

// BenchmarkHeartbeats is 1,000 heartbeats in one request.
func BenchmarkHeartbeats(b *testing.B) {
	s := benchServer(b)
	beat := beatBody[strings.Index(beatBody, `{"node_id"`) : len(beatBody)-1]
	body := `{"jsonrpc":"2.0","id":1,"method":"node_heartbeats","params":{"beats":[` + strings.Repeat(beat+",", 999) + beat + `]}}`
	hammer(b, "http://"+s.RPCAddr().String()+"/rpc", body)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/beat")
}
