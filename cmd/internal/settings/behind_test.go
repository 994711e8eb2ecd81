package settings

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// stuck is a writer that waits before each write until it is let go on.
type stuck struct {
	bytes.Buffer
	goOn chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.goOn
	return s.Buffer.Write(p)
}

func TestBehindNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &stuck{goOn: make(chan struct{})}
		b := NewBehind(to)
		fmt.Fprintln(b, "first")
		synctest.Wait() // it is being written
		line := strings.Repeat("x", 1023) + "\n"
		const more = 44
		for range behindMost/len(line) + more {
			fmt.Fprint(b, line)
		}
		b.Close() // gives up
		close(to.goOn)
		<-b.done
		text := to.String()
		fits := (behindMost - len("first\n")) / len(line)
		if !strings.HasPrefix(text, "first\nx") || strings.Count(text, line) != fits {
			t.Errorf("%d lines were written behind %q, want %d", strings.Count(text, line), text[:10], fits)
		}
		if want := fmt.Sprint(behindMost/len(line)+more-fits, " messages were dropped"); !strings.Contains(text, want) {
			t.Errorf("it ends in %q, want %q", text[max(0, len(text)-100):], want)
		}
	})
}

func TestBehindWritesAllInOrder(t *testing.T) {
	var to, want bytes.Buffer
	b := NewBehind(&to)
	for i := range 1000 {
		fmt.Fprintln(b, i)
		fmt.Fprintln(&want, i)
	}
	b.Close()
	fmt.Fprintln(b, "too late")
	if to.String() != want.String() {
		t.Errorf("%d bytes were written, want %d", to.Len(), want.Len())
	}
}
