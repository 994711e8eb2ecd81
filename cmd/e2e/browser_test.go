//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a running Chromium.
type browser struct{ ctx context.Context }

// newBrowser starts Chromium, or skips the test where there is none.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		skip(t, "the page needs Chromium (apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.WindowSize(1400, 1000),
		chromedp.WSURLReadTimeout(time.Minute), // a busy machine starts it slowly
		// Containers have a small /dev/shm.
		chromedp.Flag("disable-dev-shm-usage", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx); err != nil {
		skip(t, fmt.Sprintf("%s does not start: %v", path, err))
	}
	return &browser{ctx}
}

// toOpen is how long a page may take until it shows what there is: on a busy
// machine the browser is slow.
const toOpen = time.Minute

// page is a tab.
type page struct {
	ctx context.Context
	url string

	mu       sync.Mutex
	problems []string // what the console says is wrong
}

// open opens a page in a tab of its own.
func (b *browser) open(t *testing.T, url string) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	p := &page{ctx: ctx, url: url}
	chromedp.ListenTarget(ctx, func(ev any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			p.problems = append(p.problems, ev.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.LevelError {
				p.problems = append(p.problems, ev.Entry.Text+" "+ev.Entry.URL)
			}
		}
	})
	if err := chromedp.Run(ctx); err != nil { // the tab lives as long as the context of its first run
		t.Fatalf("opening a tab: %v", err)
	}
	within, cancel := context.WithTimeout(ctx, toOpen)
	defer cancel()
	if err := chromedp.Run(within, log.Enable(), chromedp.Navigate(url)); err != nil {
		t.Fatalf("opening %s: %v", url, err)
	}
	return p
}

// text returns what a person can read on the page.
func (p *page) text() (string, error) {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	var text string
	err := chromedp.Run(ctx, chromedp.Evaluate(`document.body.innerText`, &text))
	return text, err
}

// shows waits until all these words can be read on the page, without a reload.
func (p *page) shows(t *testing.T, within time.Duration, words ...string) {
	t.Helper()
	eventually(t, within, func() error {
		text, err := p.text()
		if err != nil {
			return err
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				return errNotYet("%s does not show %q but:\n%s", p.url, word, text)
			}
		}
		return nil
	})
}

// quiet fails the test when the page had errors on its console.
func (p *page) quiet(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		t.Errorf("console of %s: %s", p.url, problem)
	}
}
