package serial_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/serial"
)

func ExampleLine() {
	var line serial.Line
	tap := line.Tap()
	fmt.Fprint(&line, "login: ")
	line.Close()
	text, err := io.ReadAll(tap)
	fmt.Printf("%q %v\n", text, err)
	// Output: "login: " <nil>
}

func TestAllTapsReadTheSame(t *testing.T) {
	var line serial.Line
	a, b := line.Tap(), line.Tap()
	fmt.Fprint(&line, "one ")
	late := line.Tap()
	fmt.Fprint(&line, "two")
	line.Close()
	for tap, want := range map[*serial.Tap]string{a: "one two", b: "one two", late: "two", line.Tap(): ""} {
		if got, err := io.ReadAll(tap); string(got) != want || err != nil {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
}

// One that does not read neither holds up the line nor the others, and learns
// that it has missed something.
func TestSlowTapIsCutOff(t *testing.T) {
	var line serial.Line
	slow, quick := line.Tap(), line.Tap()
	chunk := strings.Repeat("x", 1000)
	written := 0
	for written <= serial.MaxBehind {
		fmt.Fprint(&line, chunk)
		written += len(chunk)
		if _, err := io.ReadFull(quick, make([]byte, len(chunk))); err != nil {
			t.Fatal(err)
		}
	}
	got, err := io.ReadAll(slow)
	if !errors.Is(err, serial.ErrBehind) {
		t.Errorf("the slow one ends with %v", err)
	}
	if len(got) > serial.MaxBehind || len(got) < serial.MaxBehind/2 {
		t.Errorf("it read %d bytes", len(got))
	}
	fmt.Fprint(&line, "on")
	line.Close()
	if got, err := io.ReadAll(quick); string(got) != "on" || err != nil {
		t.Errorf("the quick one reads %q, %v", got, err)
	}
}

func TestCloseWakesTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var line serial.Line
		tap := line.Tap()
		ended := make(chan error)
		go func() {
			_, err := tap.Read(make([]byte, 1))
			ended <- err
		}()
		synctest.Wait()
		tap.Close()
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("Read ends with %v", err)
		}
		fmt.Fprint(&line, "nobody reads this")
		tap.Close()
	})
}
