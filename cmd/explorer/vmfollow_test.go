package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A log is printed once, in order, though the master that gave it dies in the middle and
// the next one begins before where it was.
func TestFollowedLogGoesOn(t *testing.T) {
	stub := newStub(stubGrids["MASTER"])
	defer stub.Close()
	var streams atomic.Int32
	pieces := [][2]int{{1, 40}, {25, 60}, {61, 70}} // the last one lacks what was printed
	at := func() *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/vms/v1/logs" {
				stub.Config.Handler.ServeHTTP(w, r)
				return
			}
			n := int(streams.Add(1)) - 1
			for i := pieces[n][0]; i <= pieces[n][1]; i++ {
				fmt.Fprintf(w, "line %d\nand one that is often there\n", i)
			}
			if n < len(pieces)-1 {
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}))
	}
	first, second := at(), at()
	defer first.Close()
	defer second.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	addrs := first.Listener.Addr().String() + "," + second.Listener.Addr().String()
	if code := run(context.Background(), []string{"vms", "logs", "v1", "--follow", "--secret-file", secret, "--addr", addrs}, os.LookupEnv, &out, &errs); code != 0 {
		t.Fatalf("ended with %d: %s", code, &errs)
	}
	var want strings.Builder
	for i := 1; i <= 70; i++ {
		fmt.Fprintf(&want, "line %d\nand one that is often there\n", i)
	}
	if out.String() != want.String() {
		t.Errorf("printed\n%s\nwith\n%s", &out, &errs)
	}
}
