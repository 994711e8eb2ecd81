package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// files serves files, or refuses everything with a status and a body.
func files(t *testing.T, status int, refusal string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != 0 {
			w.WriteHeader(status)
			io.WriteString(w, refusal)
			return
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		io.WriteString(w, r.Method+" "+r.Header.Get("Authorization")+" "+string(b))
		if r.URL.Path == "/cut" {
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func newClient(t *testing.T, addrs ...string) *client.Client {
	t.Helper()
	c, err := client.New(addrs, client.Options{Token: "right"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const busyText = `{"error":"no room","hint":"come back"}`

// A body is sent to the first service that wants it.
func TestTransfersGoOnToTheNext(t *testing.T) {
	c := newClient(t, "127.0.0.1:1", files(t, 503, busyText), files(t, 0, ""))
	for range 2 {
		answer, err := c.Upload(t.Context(), "/x", io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer)
		if answer.Close(); err != nil || string(b) != "POST Bearer right body" {
			t.Errorf("%q, %v", b, err)
		}
	}
	c = newClient(t, "127.0.0.1:1", files(t, 503, busyText), files(t, 0, ""))
	body, err := c.Download(t.Context(), "/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if b, err := io.ReadAll(body); err != nil || string(b) != "GET Bearer right " {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDownloadThatBreaksOff(t *testing.T) {
	body, err := newClient(t, files(t, 0, "")).Download(t.Context(), "/cut", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if b, err := io.ReadAll(body); err == nil {
		t.Errorf("%q ended as if it were whole", b)
	}
}

func TestTransfersAreRefused(t *testing.T) {
	for _, c := range []struct {
		status              int
		text, message, hint string
	}{
		{400, `{"error":"not a backup","hint":"send one"}`, "not a backup", "send one"},
		{503, busyText, "no room", "come back"},
		{401, `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"a token is needed","data":{"hint":"make one"}}}`, "a token is needed", "make one"},
		{404, "404 page not found", "answered with HTTP status 404", ""},
		{500, `{"error":{}}`, "answered with HTTP status 500", ""},
	} {
		addr := files(t, c.status, c.text)
		body := strings.NewReader("body")
		_, up := newClient(t, addr).Upload(t.Context(), "/x", body)
		_, down := newClient(t, addr).Download(t.Context(), "/x", nil)
		for what, err := range map[string]error{"upload": up, "download": down} {
			var e *client.StatusError
			if !errors.As(err, &e) || e.Status != c.status || !strings.Contains(e.Error(), c.message) || e.Hint != c.hint {
				t.Errorf("%s: %d: %v", what, c.status, err)
			}
		}
		if body.Len() != 4 {
			t.Errorf("%d: the body was read although it was not wanted", c.status)
		}
	}
	_, err := newClient(t, "127.0.0.1:1").Upload(t.Context(), "/x", strings.NewReader("body"))
	if e := (*client.TransportError)(nil); !errors.As(err, &e) || e.Sent {
		t.Errorf("nobody there: %v", err)
	}
}
