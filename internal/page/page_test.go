package page

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func get(method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	Handler(func() View { return cluster(5, time.Now()) }).ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("{}")))
	return w
}

// TestOnlyReads calls every path with every method.
func TestOnlyReads(t *testing.T) {
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/", 200}, {"HEAD", "/", 200}, {"GET", "/status.json", 200}, {"HEAD", "/status.json", 200},
		{"POST", "/", 405}, {"PUT", "/status.json", 405}, {"DELETE", "/status.json", 405}, {"PATCH", "/", 405}, {"OPTIONS", "/", 405},
		{"GET", "/index.html", 404}, {"GET", "/style.css", 404}, {"GET", "/flannel/v1/status", 404}, {"POST", "/flannel/v1/leave", 404},
	} {
		if got := get(c.method, c.path).Code; got != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, got, c.want)
		}
	}
}

// TestOnePage holds what keeps the page to itself; the browser's test sees it work.
func TestOnePage(t *testing.T) {
	w := get(http.MethodGet, "/")
	body, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q lacks %s", policy, part)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("the policy lets too much: %s", policy)
	}
	for _, mark := range []string{"/*style*/", "/*script*/", " src=", "@import", "//cdn", "innerHTML"} {
		if strings.Contains(body, mark) {
			t.Errorf("the page has %s", mark)
		}
	}
	if strings.Count(body, "<script>") != 1 || strings.Count(body, "<style>") != 1 {
		t.Error("not one script and one style")
	}
	for key, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Access-Control-Allow-Origin": ""} {
		if got := w.Header().Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

// TestStatusEscapes looks at the answer as a browser that took it for a page.
func TestStatusEscapes(t *testing.T) {
	w := get(http.MethodGet, "/status.json")
	if text := w.Body.String(); strings.Contains(text, "<script") || strings.Contains(text, "<img") {
		t.Error("the answer holds elements")
	}
	var v View
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if got := v.Status.Networks[0].Skipped[0].Key; got != hostile {
		t.Errorf("the key came as %s", got)
	}
	if kind := w.Header().Get("Content-Type"); kind != "application/json" {
		t.Error(kind)
	}
}
