//go:build lab

package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// promtool is Prometheus' own judge.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	return string(out), err
}

func TestPromtool(t *testing.T) {
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"}, {"check", "rules", "--lint-fatal", "alerts.yml"}, {"test", "rules", "alerts_test.yml"},
	} {
		if out, err := promtool(t, args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestDashboardParses hands every query of the dashboard to promtool as a rule.
func TestDashboardParses(t *testing.T) {
	for _, exprs := range load(t).expressions() {
		for _, expr := range exprs {
			if out, err := parses(t, strings.ReplaceAll(expr, "$__rate_interval", "1m")); err != nil {
				t.Errorf("%s: %s", expr, out)
			}
		}
	}
	if _, err := parses(t, "sum by (instance (flannel_ready)"); err == nil {
		t.Error("promtool takes what is no PromQL")
	}
}

func parses(t *testing.T, expr string) (string, error) {
	t.Helper()
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	rules, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "query", "rules": []rule{{"query:one", expr}}}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rules.yml") // JSON is YAML
	if err := os.WriteFile(path, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	return promtool(t, "check", "rules", path)
}
