package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

func TestRoundTrip(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Break") != "" {
			panic(http.ErrAbortHandler)
		}
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %q", r.Method, r.RequestURI, r.Header.Get("Authorization"), body)
	}))
	defer s.Close()
	c := dial(t, s.URL, client.Options{Token: "ours"})
	mounted := dial(t, s.URL+"/mounted/", client.Options{})
	send := func(c *client.Conn, name string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://elsewhere/a%2Fb/logs?follow=1&x", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "theirs")
		if name != "" {
			req.Header.Set(name, "1")
		}
		return c.RoundTrip(req)
	}
	for base, conn := range map[string]*client.Conn{"": c, "/mounted": mounted} {
		resp, err := send(conn, "")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		if want := `POST ` + base + `/a%2Fb/logs?follow=1&x theirs "body"`; resp.StatusCode != http.StatusTeapot || string(got) != want {
			t.Errorf("%s %s, want %s", resp.Status, got, want)
		}
	}
	for _, f := range []struct {
		conn   *client.Conn
		header string
		sent   bool
	}{
		{c, "X-Break", true},
		{c, "Idempotency-Key", false},
		{c, "X-Idempotency-Key", false},
		{dial(t, nobody(t), client.Options{}), "", false},
	} {
		var e *client.TransportError
		if _, err := send(f.conn, f.header); !errors.As(err, &e) || e.Sent != f.sent {
			t.Errorf("%s: %v, want one that says sent: %v", f.header, err, f.sent)
		}
	}
}
