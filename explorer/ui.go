package explorer

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed ui
var uiFiles embed.FS

// contentPolicy lets the page load and call its own listener only.
const contentPolicy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// uiHandler serves the page, and the API that the page needs by way of the
// first master that works.
func (s *Server) uiHandler() http.Handler {
	files, err := fs.Sub(uiFiles, "ui")
	if err != nil {
		panic(err) // the directory is compiled in
	}
	page := http.FileServerFS(files)
	mux := http.NewServeMux()
	s.handleAPI(mux)
	mux.HandleFunc("POST /explorer/rpc", s.uiRPC)
	mux.Handle("GET /explorer/events", s.counted("/explorer/events", s.protected(s.uiEvents)))
	mux.Handle("GET /", s.counted("/", func(w http.ResponseWriter, r *http.Request) {
		// What is not meant for browsers is not served.
		if strings.HasSuffix(r.URL.Path, ".go") || strings.HasSuffix(r.URL.Path, ".md") {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache") // a new version of the program has a new page
		page.ServeHTTP(w, r)
	}))
	return s.protect(mux)
}
