// Package monitoring holds the example dashboard and alerts against the
// plugin's metrics.
package monitoring

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what the tests look at of Grafana's.
type dashboard struct {
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ Expr string }
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func load(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// expressions are all of the dashboard's PromQL, by panel.
func (d dashboard) expressions() map[string][]string {
	out := map[string][]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			out[p.Title] = append(out[p.Title], target.Expr)
		}
	}
	return out
}

// metric is one of docs/metrics.md, which is made from the code.
type metric struct {
	kind   string
	labels []string
}

func documented(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{}
	row := regexp.MustCompile("(?m)^\\| `(flannel_\\w+)` \\| (\\w+) \\| ([^|]*) \\|")
	for _, m := range row.FindAllStringSubmatch(read(t, "../../docs/metrics.md"), -1) {
		all[m[1]] = metric{m[2], regexp.MustCompile(`\w+`).FindAllString(m[3], -1)}
	}
	if len(all) < 20 {
		t.Fatalf("%d metrics found in docs/metrics.md", len(all))
	}
	return all
}

var (
	selector = regexp.MustCompile(`\b((?:flannel|process)_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	grouping = regexp.MustCompile(`\b(?:by|on|ignoring|without)\s*\(([^)]*)\)`)
	word     = regexp.MustCompile(`\w+`)
)

// faults finds metrics and labels of an expression that the plugin does not have.
func faults(expr string, all map[string]metric) (out []string) {
	labels := []string{"instance", "job"} // Prometheus' own
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		name, own := s[1], []string{"instance", "job"}
		m, known := all[name]
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base, cut := strings.CutSuffix(name, suffix); cut && all[base].kind == "histogram" {
				m, known = all[base], true
				own = append(own, "le")
			}
		}
		if !known && !strings.HasPrefix(name, "process_") {
			out = append(out, "no metric "+name)
		}
		own = append(own, m.labels...)
		labels = append(labels, own...)
		for _, l := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(own, l[1]) {
				out = append(out, name+" has no label "+l[1])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, l := range word.FindAllString(g[1], -1) {
			if !slices.Contains(labels, l) {
				out = append(out, "no label "+l)
			}
		}
	}
	return out
}

// alerts are the expressions of alerts.yml, by name.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	rule := regexp.MustCompile(`(?m)^ +- alert: (\w+)\n +expr: (.*)$`)
	for _, m := range rule.FindAllStringSubmatch(read(t, "alerts.yml"), -1) {
		out[m[1]] = m[2]
	}
	if n := strings.Count(read(t, "alerts.yml"), "alert:"); n == 0 || n != len(out) {
		t.Fatalf("%d alerts, of which %d are understood", n, len(out))
	}
	return out
}

// TestMetricsExist looks up every metric and label that the dashboard and the
// alerts name.
func TestMetricsExist(t *testing.T) {
	all := documented(t)
	check := func(where, expr string) {
		if found := faults(expr, all); len(found) > 0 {
			t.Errorf("%s: %s in %s", where, strings.Join(found, ", "), expr)
		}
	}
	for title, exprs := range load(t).expressions() {
		for _, expr := range exprs {
			check("panel "+title, expr)
		}
	}
	for name, expr := range alerts(t) {
		check("alert "+name, expr)
	}
	for _, wrong := range []string{
		"flannel_redy", `flannel_peers{colour="red"}`, "sum by (colour) (flannel_peers)", "flannel_peers_bucket", `flannel_ready{network=""}`,
	} {
		if len(faults(wrong, all)) == 0 {
			t.Errorf("nothing is found wrong with %s", wrong)
		}
	}
}

// TestAlertsAreTried wants every alert in alerts_test.yml and docs/metrics.md, and
// what it says.
func TestAlertsAreTried(t *testing.T) {
	tried, text, docs := read(t, "alerts_test.yml"), read(t, "alerts.yml"), read(t, "../../docs/metrics.md")
	for name := range alerts(t) {
		if !strings.Contains(tried, `alertname="`+name+`", severity=`) {
			t.Errorf("alerts_test.yml does not let %s fire", name)
		}
		if !strings.Contains(docs, "\n| "+name+" |") {
			t.Errorf("docs/metrics.md does not tell of %s", name)
		}
	}
	for _, part := range []string{"severity: ", "summary: ", "description: "} {
		if got, want := strings.Count(text, part), len(alerts(t)); got != want {
			t.Errorf("%d of %d alerts have %s", got, want, part)
		}
	}
}

// TestPanels holds that panels are told apart and do not cover each other.
func TestPanels(t *testing.T) {
	d, taken, ids := load(t), map[[2]int]string{}, map[int]bool{}
	if len(d.Panels) < 20 {
		t.Errorf("%d panels", len(d.Panels))
	}
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] || (p.Type != "row") != (len(p.Targets) > 0) {
			t.Errorf("panel %d %q of type %s with %d queries", p.ID, p.Title, p.Type, len(p.Targets))
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.X+g.W > 24 || g.W == 0 || g.H == 0 {
			t.Errorf("panel %s is at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panel %s covers %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
