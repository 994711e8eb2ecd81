package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// playQEMU answers each line it gets with the next answer, in which ID stands
// for the line's id; then it hangs up.
func playQEMU(conn net.Conn, greeting string, answers ...string) {
	defer conn.Close()
	fmt.Fprint(conn, greeting)
	in := bufio.NewScanner(conn)
	for id := 1; id <= len(answers) && in.Scan(); id++ {
		time.Sleep(time.Millisecond)
		fmt.Fprint(conn, strings.ReplaceAll(answers[id-1], "ID", fmt.Sprint(id)))
	}
	in.Scan() // the next command gets no answer
}

func TestMonitor(t *testing.T) {
	ours, theirs := net.Pipe()
	go playQEMU(theirs, `{"QMP":{"version":{}}}`+"\r\n",
		`{"return":{},"id":ID}`+"\r\n",
		`{"event":"RESUME","timestamp":{"seconds":1}}`+"\r\n"+`{"return":{"running":false,"status":"io-error"},"id":ID}`+"\r\n",
		`{"error":{"class":"GenericError","desc":"no way"},"id":ID}`+"\r\n")
	events := make(chan string, 1)
	m, err := openMonitor(t.Context(), ours, func(name string) { events <- name })
	if err != nil {
		t.Fatal(err)
	}
	p := &process{monitor: m}
	if st, err := p.status(t.Context()); st != (runState{Status: "io-error"}) || err != nil {
		t.Errorf("status %+v, %v", st, err)
	}
	if event := <-events; event != "RESUME" {
		t.Errorf("event %q", event)
	}
	if err := m.execute(t.Context(), "cont", nil); err == nil || !strings.Contains(err.Error(), "no way") {
		t.Errorf("a command that fails: %v", err)
	}
	if err := m.execute(t.Context(), "quit", nil); !errors.Is(err, errHungUp) {
		t.Errorf("a command without an answer: %v", err)
	}
}

// What does not speak QMP, or not at all, is no QEMU.
func TestMonitorOfAnother(t *testing.T) {
	for _, greeting := range []string{"SSH-2.0\r\n", strings.Repeat("x", 2*maxMonitorLine), "{}\n{\"QMP\":1}\n{\"QMP\":1}\n"} {
		ours, theirs := net.Pipe()
		go playQEMU(theirs, greeting)
		if _, err := openMonitor(t.Context(), ours, nil); !errors.Is(err, errHungUp) {
			t.Errorf("%.20q: %v", greeting, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		ctx, cancel := context.WithTimeout(t.Context(), takeOverTimeout)
		defer cancel()
		if _, err := openMonitor(ctx, ours, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that is silent: %v", err)
		}
	})
}

// An answer that came too late is not taken for the next one's.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go playQEMU(theirs, `{"QMP":{}}`+"\n", `{"return":{},"id":ID}`+"\n", "",
			`{"return":{"status":"mine"},"id":ID}`+"\n")
		m, err := openMonitor(t.Context(), ours, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := &process{monitor: m}
		if _, err := p.status(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("no answer: %v", err)
		}
		fmt.Fprintln(theirs, `{"return":{"status":"late"},"id":2}`)
		synctest.Wait()
		if st, err := p.status(t.Context()); st.Status != "mine" || err != nil {
			t.Errorf("%+v, %v", st, err)
		}
		m.conn.Close()
	})
}
