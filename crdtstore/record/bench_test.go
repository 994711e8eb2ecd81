package record

import (
	"fmt"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// typicalReport is what a small machine says: five VMs, four labels.
func typicalReport(seq uint64) Report {
	r := Report{
		NodeID: testNode, Boot: 1_760_000_000_000, Seq: seq,
		Profile: Profile{
			Hostname: "node-1.example.com", SocketPath: "unix:///run/hero_compute/rpc.sock",
			MyceliumIP: "5f2:8d1c:44aa:1f0e:9a3b:77c2:10de:4b6a", Version: "1.4.2",
			Location: Location{"Belgium", "Ghent", 51.0543, 3.7174},
			Total:    Capacity{CRU: 32, MRU: 128 << 30, SRU: 2 << 40, HRU: 16 << 40}, SlicesTotal: 60,
			MachineID: "0123456789abcdef0123456789abcdef",
			Labels:    map[string]string{"zone": "eu-west", "rack": "r12", "tier": "gold", "owner": "ops"},
		},
		UptimeS: 86_400,
	}
	for i := range 5 {
		r.VMs = append(r.VMs, VM{
			SID: fmt.Sprintf("vm-%04d", i), Name: fmt.Sprintf("web-%d", i), State: "running",
			CPU: 4, Memory: 8 << 30, IP: fmt.Sprintf("10.0.0.%d", i+1),
		})
	}
	return r
}

// typicalState is what masters hold of a signed, labelled and drained node.
func typicalState(tb rapid.TB, seq uint64) State {
	r := typicalReport(seq)
	r.Sign(testKey(1))
	s := accept(tb, State{}, r, 1_760_000_000_500)
	s = Join(s, s.Set(1_760_000_001_000, "12D3KooWmaster", "ann", FieldLabel+"zone", "=eu"))
	return Join(s, s.Set(1_760_000_002_000, "12D3KooWmaster", "ann", FieldDrain, "1"))
}

func BenchmarkJoin(b *testing.B) {
	older, newer := typicalState(b, 1), typicalState(b, 2)
	b.Run("newer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Join(older, newer)
		}
	})
	b.Run("into_nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Join(State{}, newer)
		}
	})
}

func BenchmarkDominates(b *testing.B) {
	older, newer := typicalState(b, 1), typicalState(b, 2)
	b.ReportAllocs()
	for b.Loop() {
		newer.Dominates(older)
	}
}

func BenchmarkEncode(b *testing.B) {
	s := typicalState(b, 1)
	b.ReportMetric(float64(len(s.Encode())), "B/state")
	b.ReportAllocs()
	for b.Loop() {
		s.Encode()
	}
}

func BenchmarkDecode(b *testing.B) {
	in := string(typicalState(b, 1).Encode())
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAccept(b *testing.B) {
	known := typicalState(b, 1)
	signed := typicalReport(2)
	signed.Sign(testKey(1))
	unsigned := typicalReport(1)
	for name, c := range map[string]struct {
		known  State
		report Report
	}{
		"unsigned": {accept(b, State{}, unsigned, 1), typicalReport(2)},
		"no_news":  {accept(b, State{}, unsigned, 1), unsigned},
		"signed":   {known, signed},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Accept(c.known, c.report, Acceptance{Now: 1_760_000_003_000}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkView(b *testing.B) {
	s := typicalState(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		View(testNode, s)
	}
}

func BenchmarkDigest(b *testing.B) {
	s := typicalState(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		s.Digest(testNode)
	}
}

func BenchmarkVerified(b *testing.B) {
	s := typicalState(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		s.Verified(testNode)
	}
}

// BenchmarkMemoryPerState measures the heap that a decoded state keeps, its
// encoded bytes included, for they share memory.
func BenchmarkMemoryPerState(b *testing.B) {
	in := typicalState(b, 1).Encode()
	held := make([]State, 0, 10_000)
	var before, after runtime.MemStats
	for b.Loop() {
		clear(held)
		held = held[:0]
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range cap(held) {
			s, err := Decode(string(in))
			if err != nil {
				b.Fatal(err)
			}
			held = append(held, s)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(cap(held)), "B/state")
	b.ReportMetric(float64(len(in)), "B/encoded")
	runtime.KeepAlive(held)
}
