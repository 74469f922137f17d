//go:build lab

package page

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// site serves a view that a test changes.
type site struct {
	*httptest.Server
	mu   sync.Mutex
	view View
}

func serve(t *testing.T, v View) *site {
	t.Helper()
	s := &site{view: v}
	s.Server = httptest.NewServer(Handler(func() View {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.view
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) set(v View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view = v
}

// witness notes what a browser asked for and complained of.
type witness struct {
	mu       sync.Mutex
	asked    []string
	complain []string
}

func (w *witness) watch(ctx context.Context) {
	requests, console := chromedp.Events(ctx, network.RequestWillBeSent), chromedp.Console(ctx)
	go func() {
		for r, err := range requests {
			if err == nil {
				w.note(&w.asked, r.Request.URL)
			}
		}
	}()
	go func() {
		for m, err := range console {
			if err == nil {
				w.note(&w.complain, m.String())
			}
		}
	}()
}

func (w *witness) note(to *[]string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*to = append(*to, text)
}

func (w *witness) complaints() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.complain)
}

// strangers are the requests to anything but a site's page.
func (w *witness) strangers(s *site) (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, url := range w.asked {
		if url != s.URL+"/" && url != s.URL+"/status.json" && !strings.HasPrefix(url, "data:") {
			out = append(out, url)
		}
	}
	return out
}

// browser is a tab of a real one.
type browser struct {
	t   *testing.T
	ctx context.Context
}

func open(t *testing.T) (*browser, *witness) {
	t.Helper()
	// The sandbox does not work for root.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium-headless-shell"), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b, w := &browser{t, ctx}, &witness{}
	w.watch(ctx)
	b.do(chromedp.EmulateViewport(1280, 962))
	call(b, network.Enable, network.EnableParams{})
	return b, w
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command of the browser's protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// value evaluates an expression, and waits for it where it is a promise.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// await waits until an expression of the page is true.
func (b *browser) await(expression string) {
	b.t.Helper()
	tick, late := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !value[bool](b, expression) {
		select {
		case <-tick.C:
		case <-late:
			b.t.Fatalf("%s does not come true:\n%s", expression, value[string](b, `document.body.innerText`))
		}
	}
}

func (b *browser) want(expression, want string) {
	b.t.Helper()
	if got := value[string](b, "String("+expression+")"); got != want {
		b.t.Errorf("%s is %q, want %q", expression, got, want)
	}
}

// TestBrowser looks at six hosts; then one more comes, and the plugin goes.
func TestBrowser(t *testing.T) {
	now := time.Now()
	s := serve(t, cluster(5, now))
	b, w := open(t)
	b.do(chromedp.Navigate(s.URL + "/"))
	b.await(`document.querySelectorAll('#picture .card').length === 6`)
	b.want(`document.querySelectorAll('#picture .wire').length`, "5")
	b.want(`document.querySelector('#state').textContent`, "● ready")
	b.want(`document.querySelector('#picture .self .main').textContent`, "10.5.19.0/24")
	b.want(`[...document.querySelectorAll('#picture .pill')].map(p => p.textContent).sort().join()`, "⊘ skipped,▲ 20 % lost,● 0.18 ms,● 0.33 ms,✕ no answer")
	b.want(`[...document.querySelectorAll('#hosts tbody tr')].map(r => r.cells[0].textContent).join()`, "10.5.29.0/24,10.5.36.0/24,10.5.15.0/24,10.5.22.0/24,10.5.8.0/24")
	b.want(`document.querySelector('#skipped td:nth-child(2)').textContent`, hostile)
	b.want(`document.querySelectorAll('#events tbody tr').length`, "4")
	b.want(`document.querySelectorAll('script, img, iframe').length + ' ' + window.hacked`, "1 undefined")

	s.set(cluster(6, now))
	b.await(`document.querySelectorAll('#picture .card').length === 7 && document.querySelector('#picture').textContent.includes('192.0.2.7')`)
	b.do(chromedp.Click(`#choice button:nth-child(2)`))
	b.want(`document.querySelectorAll('#picture .card').length + document.querySelector('#summary').textContent`, "2network red: 10.128.0.0/16, host-gw, 2 hosts")
	b.do(chromedp.Click(`#choice button:nth-child(1)`), chromedp.SendKeys(`#find`, "192.0.2.7"))
	b.want(`document.querySelectorAll('#hosts tbody tr').length + ' ' + document.querySelectorAll('#picture .card.faded').length`, "1 5")

	broken := cluster(0, now)
	broken.Status.Networks, broken.Status.Problems = nil, cluster(0, now).Status.Notes
	s.set(broken)
	b.await(`document.querySelector('#state').textContent === '▲ 1 problem' && document.querySelector('#cluster').hidden`)
	if complaints, strangers := w.complaints(), w.strangers(s); len(complaints)+len(strangers) > 0 {
		t.Errorf("the browser says %q, and asked for %q", complaints, strangers)
	}
	s.Close()
	b.await(`document.querySelector('#fresh').textContent.startsWith('not up to date')`)
}

// TestPageIsConfined tries from the inside what the policy forbids; the witness
// of each try is what happens without the policy.
func TestPageIsConfined(t *testing.T) {
	var visits atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		visits.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "text/html")
	}))
	t.Cleanup(other.Close)
	s := serve(t, cluster(5, time.Now()))
	b, _ := open(t)
	for _, c := range []struct {
		url                    string
		fetched, ran, inserted bool
	}{
		{other.URL + "/", true, true, true}, {s.URL + "/", false, false, false},
	} {
		b.do(chromedp.Navigate(c.url))
		before := visits.Load()
		fetched := value[bool](b, `fetch(`+"`"+other.URL+`/leak`+"`"+`).then(() => true, () => false)`)
		ran := value[bool](b, `(() => { const s = document.createElement('script'); try { s.text = 'window.ran = true'; document.body.append(s) } catch { } return !!window.ran })()`)
		inserted := value[bool](b, `(() => { try { document.body.insertAdjacentHTML('beforeend', '<i id=inserted>'); } catch { } return !!document.getElementById('inserted') })()`)
		reached := visits.Load() > before
		if fetched != c.fetched || reached != c.fetched || ran != c.ran || inserted != c.inserted {
			t.Errorf("%s: fetched %t (seen there: %t), script ran %t, element inserted %t", c.url, fetched, reached, ran, inserted)
		}
	}
}

// TestThousandHosts holds that many hosts are drawn soon and fit a screen.
func TestThousandHosts(t *testing.T) {
	s := serve(t, cluster(1000, time.Now()))
	b, w := open(t)
	b.do(chromedp.Navigate(s.URL + "/"))
	b.await(`document.querySelectorAll('#picture .cell').length === 1000`)
	b.want(`document.querySelector('#picture .cell').classList.contains('silent')`, "true")
	b.want(`document.querySelector('#picture svg').getBoundingClientRect().height < 600`, "true")
	b.want(`document.querySelectorAll('#hosts tbody tr').length`, "25")
	took := math.Inf(1)
	for range 5 { // the machine may be busy
		took = min(took, value[float64](b, `(() => { const t = performance.now(); made.clear(); show(); return performance.now() - t })()`))
	}
	if took > 500 {
		t.Errorf("drawing takes %.0f ms", took)
	}
	b.shoot("thousand.png")
	if complaints, strangers := w.complaints(), w.strangers(s); len(complaints)+len(strangers) > 0 {
		t.Errorf("the browser says %q, and asked for %q", complaints, strangers)
	}
}

// TestScreenshot takes the picture docs/status-page.png, the page's upper part;
// PAGE_SHOT=FOLDER leaves it and others there.
func TestScreenshot(t *testing.T) {
	s := serve(t, cluster(5, time.Now()))
	b, _ := open(t)
	b.do(chromedp.Navigate(s.URL + "/"))
	b.await(`document.querySelectorAll('#picture .card').length === 6`)
	b.shoot("light.png")
	if size := b.keep("status-page.png", chromedp.CaptureScreenshot()); size < 10_000 || size > 150_000 {
		t.Errorf("the picture has %d bytes", size)
	}
	light := value[string](b, `getComputedStyle(document.body).backgroundColor`)
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	b.shoot("dark.png")
	if dark := value[string](b, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("dark and light are both %s", dark)
	}
}

// shoot leaves a picture of the whole page in PAGE_SHOT, if that is given.
func (b *browser) shoot(name string) {
	b.t.Helper()
	if os.Getenv("PAGE_SHOT") != "" {
		b.keep(name, chromedp.FullScreenshot(100))
	}
}

// keep takes a picture, leaves it in PAGE_SHOT and returns its size in bytes.
func (b *browser) keep(name string, take chromedp.Action[[]byte]) int {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, take)
	if err != nil {
		b.t.Fatal(err)
	}
	png = smaller(b.t, png)
	if folder := os.Getenv("PAGE_SHOT"); folder != "" {
		if err := os.WriteFile(folder+"/"+name, png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	return len(png)
}
