package ops

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// childDir names the directory of a process that is to be killed.
const childDir = "OPS_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child runs operations until it is killed. It writes down that one ran, and says
// what it was answered.
func child(dir string) {
	m, err := Open(filepath.Join(dir, "operations"), Options{})
	if err != nil {
		panic(err)
	}
	runs, err := os.OpenFile(filepath.Join(dir, "runs"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	for range 8 {
		go func() {
			for {
				id := fmt.Sprint(rand.IntN(300))
				answer, err := m.Do(context.Background(), id, [32]byte{}, func(context.Context) ([]byte, error) {
					_, err := fmt.Fprintln(runs, id)
					return fmt.Append(nil, rand.Uint64()), err
				})
				fmt.Fprintf(os.Stdout, "%s %s %v\n", id, answer, err != nil)
			}
		}()
	}
	select {}
}

// Processes are killed again and again while they run operations.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	answers, unknown := map[string]string{}, 0
	for range 8 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for left := 60 + rand.IntN(30); lines.Scan(); left-- {
			took(t, lines.Text(), answers, &unknown)
			if left == 0 {
				_ = cmd.Process.Kill() // and what it had said before is read to its end
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the process ended by itself")
		}
	}
	runs, err := os.ReadFile(filepath.Join(dir, "runs"))
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, id := range strings.Fields(string(runs)) {
		if count[id]++; count[id] > 1 {
			t.Errorf("%s ran twice", id)
		}
	}
	for id := range answers {
		if count[id] != 1 {
			t.Errorf("%s was answered, and ran %d times", id, count[id])
		}
	}
	t.Logf("%d operations ran, %d were answered, %d answers said unknown", len(count), len(answers), unknown)
}

// took takes a line of a child: an id, its answer, and whether there is none.
func took(t *testing.T, line string, answers map[string]string, unknown *int) {
	t.Helper()
	parts := strings.Split(line, " ")
	id, answer := parts[0], parts[1]
	switch {
	case parts[2] != "false":
		if *unknown++; answers[id] != "" {
			t.Errorf("%s was answered, and then unknown", id)
		}
	case answers[id] != "" && answers[id] != answer:
		t.Errorf("%s was answered %s and then %s", id, answers[id], answer)
	default:
		answers[id] = answer
	}
}
