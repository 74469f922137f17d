package plugin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// TestOperatorSeesMore asks for the audit and the log, which is told also where
// the plugin cannot work.
func TestOperatorSeesMore(t *testing.T) {
	r := &ring{}
	if _, err := io.WriteString(r, "level=INFO msg=serving\n"); err != nil {
		t.Fatal(err)
	}
	o := &operator{recent: r, log: slog.New(slog.DiscardHandler), audit: func(context.Context) ([]report.Difference, error) {
		return []report.Difference{{Object: "link flannel.1", Change: "add link flannel.1"}}, nil
	}}
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		o.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	if code, body := ask("/flannel/v1/audit"); code != http.StatusOK || body != `[{"Object":"link flannel.1","Change":"add link flannel.1"}]` {
		t.Error(code, body)
	}
	if code, body := ask("/flannel/v1/log"); code != http.StatusOK || body != `["level=INFO msg=serving"]` {
		t.Error(code, body)
	}
	o.why = errors.New("setting MTU=x")
	if code, _ := ask("/flannel/v1/audit"); code != http.StatusServiceUnavailable {
		t.Error(code)
	}
	if code, _ := ask("/flannel/v1/log"); code != http.StatusOK {
		t.Error(code)
	}
}
