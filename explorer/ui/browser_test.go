package ui_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long the page may take for anything. A machine that is busy
// with other things needs much of it.
const patience = 60 * time.Second

// pause is between two looks at the page.
const pause = 20 * time.Millisecond

var browsers = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell"}

// browser starts one browser for all tests that need it.
var browser = sync.OnceValues(func() (context.Context, error) {
	var path string
	for _, name := range browsers {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		return nil, nil
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // containers and root have none
		chromedp.DisableGPU,
		chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-dev-shm-usage", true), // containers have a small one
		chromedp.WSURLReadTimeout(time.Minute),
	)
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	// It knows fewer events than new browsers send, which does no harm.
	ctx, _ := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	stopBrowser = func() { _ = chromedp.Cancel(ctx) } // waits until it is gone
	return ctx, chromedp.Run(ctx)
})

var stopBrowser = func() {}

func TestMain(m *testing.M) {
	defer func() { stopBrowser() }()
	m.Run()
}

// page is a tab with the page of a fixture.
type page struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // what the browser complained of
}

// open opens the page of a fixture. The test fails if the page throws, or does
// what its content security policy forbids.
func open(t *testing.T, f *fixture) *page {
	t.Helper()
	parent, err := browser()
	if err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	if parent == nil {
		t.Skipf("no browser: none of %s is installed", strings.Join(browsers, ", "))
	}
	ctx, cancel := chromedp.NewContext(parent)
	p := &page{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			p.problems = append(p.problems, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Source == log.SourceSecurity {
				p.problems = append(p.problems, e.Entry.Text)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Errorf("the browser complains: %s", problem)
		}
	})
	if err := chromedp.Run(ctx); err != nil { // the tab lives as long as the context of its first run
		t.Fatal(err)
	}
	p.run(chromedp.Navigate(f.url))
	return p
}

func (p *page) run(actions ...chromedp.Action) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// eval evaluates an expression in the page.
func (p *page) eval(expression string) (result any) {
	p.t.Helper()
	p.run(chromedp.Evaluate(expression, &result))
	return result
}

// until waits until an expression is true.
func (p *page) until(expression string) {
	p.t.Helper()
	p.retry(expression, func() bool { return p.eval("Boolean("+expression+")") == true })
}

// retry does something until it succeeds.
func (p *page) retry(what string, do func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !do(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			p.t.Fatalf("never true: %s\nthe page says:\n%v", what, p.eval("document.body.innerText"))
		}
	}
}

// text waits until an element holds a text.
func (p *page) text(selector, text string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`document.querySelector(%q)?.textContent.includes(%q)`, selector, text))
}

// point is a place in the window.
type point struct{ x, y float64 }

// aim tells where an element is that can be clicked: in view, and with nothing
// before it. What is hit then is noted before the page acts on it.
const aim = `(() => {
	const element = document.querySelector(%[1]q);
	if (!element || element.disabled) return null;
	element.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
	const box = element.getBoundingClientRect();
	const x = box.x + box.width / 2, y = box.y + box.height / 2;
	if (!element.contains(document.elementFromPoint(x, y))) return null;
	for (const kind of ['mousedown', 'click']) {
		window[kind] = false; // until the element was hit
		addEventListener(kind, (e) => { window[kind] = Boolean(e.target.closest(%[1]q)); }, { capture: true, once: true });
	}
	return [x, y];
})()`

// press presses the mouse on an element, and says whether that was hit: the page
// may have moved while the mouse was on its way.
func (p *page) press(selector string) (at point, hit bool) {
	p.t.Helper()
	p.retry("something to click at "+selector, func() bool {
		found, _ := p.eval(fmt.Sprintf(aim, selector)).([]any)
		if found == nil {
			return false
		}
		at = point{found[0].(float64), found[1].(float64)}
		return true
	})
	p.run(input.DispatchMouseEvent(input.MousePressed, at.x, at.y).WithButton(input.Left).WithClickCount(1))
	return at, p.eval(`window.mousedown`) == true
}

// release lets the mouse go.
func (p *page) release(at point) {
	p.t.Helper()
	p.run(input.DispatchMouseEvent(input.MouseReleased, at.x, at.y).WithButton(input.Left).WithClickCount(1))
}

// click clicks an element with the mouse. As a person's hand does, it tries again
// when the element moved away before it was hit.
func (p *page) click(selector string) {
	p.t.Helper()
	p.retry("a click on "+selector, func() bool {
		at, hit := p.press(selector)
		if !hit {
			p.release(point{}) // elsewhere, which clicks nothing
			return false
		}
		p.release(at)
		return p.eval(`window.click`) == true
	})
}

// fill types a text into a field, in place of what is there.
func (p *page) fill(selector, text string) {
	p.t.Helper()
	p.click(selector)
	p.eval(fmt.Sprintf(`document.querySelector(%q).select()`, selector))
	p.run(chromedp.KeyEvent(text))
	if got := p.eval(fmt.Sprintf(`document.querySelector(%q).value`, selector)); got != text {
		p.t.Fatalf("%s holds %v after %q was typed", selector, got, text)
	}
}

// awaitCall waits until the page has called a method, and returns the params of
// the last call.
func (p *page) awaitCall(f *fixture, method string, where func(params map[string]any) bool) map[string]any {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(pause) {
		for _, params := range f.called(method) {
			if where == nil || where(params) {
				return params
			}
		}
	}
	p.t.Fatalf("no such call of %s; there were %v", method, f.called(method))
	return nil
}
