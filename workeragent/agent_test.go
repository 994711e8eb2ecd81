package workeragent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/host"
)

func TestVersionsGrowOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t, "a:1")
		var last record.Version
		var key string
		check := func(name string) {
			t.Helper()
			x := explorerThat(t, nil)
			s := startAgent(t, cfg, map[string]*fakeService{"a:1": x})
			time.Sleep(time.Minute)
			synctest.Wait()
			boot := uint64(0)
			for _, c := range x.take() {
				v := record.Version{Boot: c.beat.Boot, Seq: c.beat.Seq}
				if c.method == "register_node" {
					v = c.report.AccountVersion()
				}
				if boot == 0 {
					boot = v.Boot
				}
				if v.Compare(last) <= 0 || v.Boot != boot {
					t.Fatalf("%s: %+v after %+v", name, v, last)
				}
				last = v
			}
			if id := s.agent.Status().KeyID; key == "" {
				key = id
			} else if id != key {
				t.Errorf("%s: the key has changed", name)
			}
			if err := s.agent.Stop(); err != nil {
				t.Error(err)
			}
		}
		check("first start")
		check("restart")

		boot := filepath.Join(cfg.DataDir, "boot")
		if err := os.WriteFile(boot, []byte("9000000000000\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		check("clock set back")
		if last.Boot != 9000000000001 {
			t.Errorf("boot %d, want one more than the last", last.Boot)
		}
		check("clock still wrong")

		for _, broken := range []string{"", "x", "-5", "9223372036854775807", "99999999999999999999"} {
			if err := os.WriteFile(boot, []byte(broken), 0o600); err != nil {
				t.Fatal(err)
			}
			n, warning, err := nextBoot(cfg.DataDir, 1234567)
			if n != 1234567 || warning == nil || err != nil {
				t.Errorf("boot file %q: %d, %v, %v", broken, n, warning, err)
			}
		}
		if n, _, _ := nextBoot(cfg.DataDir, -1); n != 1234568 {
			t.Errorf("boot %d with a clock before 1970", n)
		}
	})
}

func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := func() *fakeService { f := explorerThat(t, nil); f.hang = true; return f }
		cfg := testConfig(t, "a:1", "b:1")
		cfg.Compute = "compute:1"
		s := startAgent(t, cfg, map[string]*fakeService{"a:1": hung(), "b:1": hung(), "compute": hung()})
		time.Sleep(4 * time.Second)
		began := time.Now()
		if err := s.agent.Stop(); err != nil || time.Since(began) > 10*time.Millisecond {
			t.Errorf("stopped after %v: %v", time.Since(began), err)
		}
		if err := s.agent.Stop(); err != nil {
			t.Errorf("second Stop: %v", err)
		}
		if err := s.agent.Start(); err == nil {
			t.Error("a stopped agent started")
		}

		// A disk that hangs for ever keeps neither the node silent nor Stop waiting.
		x := explorerThat(t, nil)
		release := make(chan struct{})
		s = startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x}, func(s *setup) {
			s.figures = func(context.Context) (host.Figures, error) { <-release; return host.Figures{}, nil }
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(x.take()); n < 6 {
			t.Errorf("%d calls in a minute beside a hanging disk", n)
		}
		began = time.Now()
		if err := s.agent.Stop(); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("stopped after %v: %v", time.Since(began), err)
		}
		close(release)
	})
}

func TestFiguresThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := explorerThat(t, nil)
		n := 0
		s := startAgent(t, testConfig(t, "a:1"), map[string]*fakeService{"a:1": x}, func(s *setup) {
			s.figures = func(context.Context) (host.Figures, error) {
				if n++; n > 3 && n < 8 {
					return someFigures, errors.New("read disks: input/output error")
				}
				return someFigures, nil
			}
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n < 11 || n > 15 {
			t.Errorf("read %d times in 2 minutes, want one for each heartbeat", n)
		}
		if n := len(x.take()); n < 12 {
			t.Errorf("%d calls in 2 minutes", n)
		}
		if a, b := s.log.lines("cannot be read"), s.log.lines("can be read again"); len(a) != 1 || len(b) != 1 {
			t.Errorf("log: %q %q", a, b)
		}
	})
}

func TestDataDirHasOneAgent(t *testing.T) {
	cfg := testConfig(t, "127.0.0.1:1")
	a, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	defer a.Stop()
	b, _ := New(cfg, slog.New(slog.DiscardHandler))
	if err := b.Start(); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second agent on one data directory: %v", err)
	}
	if err := a.Stop(); err != nil {
		t.Fatal(err)
	}
	c, _ := New(cfg, nil)
	if err := c.Start(); err != nil {
		t.Errorf("after the first has stopped: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}

func TestWarnsOfAComputeAddressThatNobodyReaches(t *testing.T) {
	for _, c := range []struct {
		explorer, compute, advertise string
		warns                        bool
	}{
		{"10.0.0.1:1", "unix:///run/rpc.sock", "", false}, // they call the agent
		{"10.0.0.1:1", "unix:///run/rpc.sock", "unix:///run/rpc.sock", true},
		{"10.0.0.1:1", "tcp://10.0.0.2:9003", "tcp://127.0.0.1:9003", true},
		{"10.0.0.1:1", "unix:///run/rpc.sock", "worker", false},
		{"10.0.0.1:1", "", "", false},
		{"localhost:1", "unix:///run/rpc.sock", "", false},
		{"[::1]:1", "unix:///run/rpc.sock", "", false},
		{"unix:///run/explorer.sock", "unix:///run/rpc.sock", "", false},
	} {
		cfg := testConfig(t, c.explorer)
		cfg.Compute, cfg.AdvertiseCompute = c.compute, c.advertise
		var log logBuffer
		a, err := New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		r := &running{node: newNode("n", nil, 1, record.Profile{})}
		if err := a.connect(r); err != nil {
			t.Fatal(err)
		}
		if warned := len(log.lines("advertise-compute")) > 0; warned != c.warns {
			t.Errorf("%+v: warned %v", c, warned)
		}
	}
}
