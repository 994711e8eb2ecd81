package statelog

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAStateIsLoggedOnceAndThenHourly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.New(slog.NewTextHandler(&out, nil)))
		lines := func() int { return strings.Count(out.String(), "\n") }
		see := func(state string, lasts time.Duration) {
			for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
				l.State(slog.LevelWarn, "peer 10.0.0.2", state, "absent", "cause", state)
			}
		}
		see("refused", time.Minute)
		if n := lines(); n != 1 {
			t.Errorf("%d lines in the first minute", n)
		}
		see("refused", 3*time.Hour)
		if n := lines(); n != 4 {
			t.Errorf("%d lines in three hours", n)
		}
		see("unreachable", time.Minute)
		if n := lines(); n != 5 || !strings.Contains(out.String(), "cause=unreachable") {
			t.Errorf("%d lines after a change:\n%s", n, &out)
		}
		l.Ended("peer 10.0.0.2")
		see("unreachable", time.Second)
		if n := lines(); n != 6 {
			t.Errorf("%d lines after it ended and began again", n)
		}
	})
}

func TestAStateThatComesAndGoesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.New(slog.NewTextHandler(&out, nil)))
		for i := range 120 {
			l.State(slog.LevelWarn, "peer", []string{"refused", "unreachable"}[i%2], "absent")
			if i%3 == 0 {
				l.Ended("peer")
			}
			time.Sleep(500 * time.Millisecond)
		}
		if n := strings.Count(out.String(), "\n"); n != perMinute {
			t.Errorf("%d lines in a minute", n)
		}
	})
}

func TestKeysAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.New(slog.NewTextHandler(&out, nil)))
		for i := range 3 * maxKeys {
			l.State(slog.LevelWarn, fmt.Sprint(i), "s", "m")
			time.Sleep(time.Millisecond)
		}
		if len(l.keys) != maxKeys || l.keys[fmt.Sprint(3*maxKeys-1)] == nil || l.keys["0"] != nil {
			t.Errorf("%d keys are remembered", len(l.keys))
		}
	})
}
