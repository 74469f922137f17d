// Package page is the status page: one document with its style and script in
// it, and the values that the script fetches from the same address. It shows,
// and changes nothing.
package page

import (
	"crypto/sha256"
	_ "embed" // the page's sources
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

var (
	//go:embed page.html
	document string
	//go:embed style.css
	styles string
	//go:embed draw.js
	drawing string
	//go:embed show.js
	showing string
)

// View is everything that the page shows, and what /status.json answers.
type View struct {
	Now    time.Time // by this host's clock, that times are shown against
	Status report.Status
	Events []Event // of the log, the oldest first
}

// Handler answers GET and HEAD of / and /status.json; everything else is not
// its own. The script may fetch from where the page came from and from nowhere
// else, and turns no text into elements.
func Handler(look func() View) http.Handler {
	script := drawing + showing
	body := strings.NewReplacer("/*style*/", styles, "/*script*/", script).Replace(document)
	policy := strings.Join([]string{
		"default-src 'none'", "script-src " + hash(script), "style-src " + hash(styles),
		"connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
		"require-trusted-types-for 'script'", "trusted-types 'none'",
	}, "; ")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		head(w, "text/html; charset=utf-8", policy)
		_, _ = w.Write([]byte(body)) // whoever asked hung up
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) {
		head(w, "application/json", "default-src 'none'; frame-ancestors 'none'")
		_ = json.NewEncoder(w).Encode(look()) // whoever asked hung up
	})
	return mux
}

func head(w http.ResponseWriter, kind, policy string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// hash names an inline script or style in a policy (CSP level 2).
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
