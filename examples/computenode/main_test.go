package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

// client speaks HTTP on a unix socket.
func client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

func TestServeOnSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "cn") // short: a socket's path has some 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "made", "on", "demand", "rpc.sock")

	for range 2 { // the second time the directories are there
		listeners, err := open(t.Context(), socket, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		svc, err := compute.New(compute.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- serve(ctx, svc, listeners, slog.New(slog.DiscardHandler)) }()

		resp, err := client(socket).Post("http://compute/rpc", "application/json",
			strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"deploy_vm","params":{"name":"web"}}`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("HTTP %d", resp.StatusCode)
		}
		if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
		// Whoever follows a log does not hold up the end.
		vm, err := svc.Deploy(t.Context(), compute.Deployment{Name: "watched"})
		if err != nil {
			t.Fatal(err)
		}
		log, err := client(socket).Get("http://compute/vms/" + vm.SID + "/logs?follow=true")
		if err != nil || log.StatusCode != http.StatusOK {
			t.Fatal(log, err)
		}
		defer log.Body.Close()
		var other bytes.Buffer
		if code := run(ctx, []string{"--socket", socket}, &other); code != 1 || !strings.Contains(other.String(), "another process") {
			t.Errorf("a second service on the socket: exit code %d, %s", code, &other)
		}

		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestSocketOfACrash(t *testing.T) {
	dir, err := os.MkdirTemp("", "cn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "rpc.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := listenUnix(t.Context(), socket)
	if err != nil {
		t.Fatalf("the socket of a crash is in the way: %v", err)
	}
	l.Close()

	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(t.Context(), file); err == nil {
		t.Error("a file was taken for a socket")
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("and is gone: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, 0, "-socket"},
		{[]string{"--what"}, 2, "what"},
		{[]string{"extra"}, 2, "extra"},
		{[]string{"--driver", "xen"}, 2, "--driver"},
		{[]string{"--driver", "qemu"}, 2, "--images"},
		{[]string{"--grace", "0s"}, 2, "--grace"},
		{[]string{"--memory-mb", "99999999"}, 2, "--memory-mb"},
		{[]string{"--socket", ""}, 2, "--listen"},
		{[]string{"--socket", "", "--listen", "nowhere"}, 1, "nowhere"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), tt.args, &stderr); code != tt.code || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%q: exit code %d, want %d, and %q in %q", tt.args, code, tt.code, tt.says, &stderr)
		}
	}
}
