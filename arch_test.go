package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/docker-flannel/docker-flannel/"

// rooms may import, of this project, only what stands behind them. Tests are
// free to look further.
var rooms = map[string][]string{
	".":                  {"internal/doctor", "internal/tool", "plugin"},
	"plugin":             {"driver", "internal/blueprint", "internal/page", "internal/report", "internal/statefile", "ipam", "overlay", "overlay/embedded", "overlay/etcd", "overlay/hostgw", "overlay/kernel", "overlay/probe", "overlay/udp", "overlay/vxlan"},
	"driver":             {"overlay", "overlay/kernel"},
	"ipam":               {"overlay", "internal/statefile"},
	"overlay":            {"overlay/kernel", "overlay/probe", "internal/report", "internal/statefile"},
	"overlay/etcd":       {"overlay", "internal/blueprint", "internal/report"},
	"overlay/embedded":   {},
	"overlay/hostgw":     {"overlay", "overlay/kernel"},
	"overlay/probe":      {},
	"overlay/udp":        {"overlay", "overlay/kernel", "internal/report"},
	"overlay/vxlan":      {"overlay", "overlay/kernel"},
	"overlay/kernel":     {},
	"internal/blueprint": {},
	"internal/page":      {"internal/report"},
	"internal/report":    {},
	"internal/tool":      {"internal/doctor", "internal/report"},
	"internal/doctor":    {"internal/report", "overlay/kernel", "overlay/probe"},
	"internal/statefile": {},
	"internal/logbuf":    {},
	"internal/recipe":    {},
	"internal/netlab":    {},
	"internal/bench": {
		"internal/netlab", "overlay", "overlay/etcd", "overlay/hostgw", "overlay/kernel", "overlay/udp", "overlay/vxlan",
	},
	"internal/demo": {"internal/netlab"},
	"internal/e2e":  {},
}

// walls says which rooms may use which outside modules.
var walls = map[string][]string{
	"github.com/vishvananda/":    {"overlay/kernel", "internal/netlab"},
	"github.com/google/nftables": {"overlay/kernel"},
	"go.etcd.io/":                {"overlay/etcd", "overlay/embedded"},
	"github.com/prometheus/":     {"plugin"},
	"github.com/spf13/":          {"internal/tool"},
	"github.com/docker/":         {"plugin", "driver", "ipam", "internal/netlab"},
}

func TestWalls(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || d.Name() == "testdata" || (d.Name() != "." && strings.HasPrefix(d.Name(), "."))) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		room := filepath.ToSlash(filepath.Dir(path))
		seen[room] = true
		checkFile(t, room, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := range rooms {
		if !seen[room] {
			t.Errorf("room %s does not exist", room)
		}
	}
}

func checkFile(t *testing.T, room, path string) {
	t.Helper()
	allowed, known := rooms[room]
	if !known {
		t.Errorf("%s: %s is not a room; give it a place in arch_test.go", path, room)
		return
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if next, ours := strings.CutPrefix(name, module); ours && !slices.Contains(allowed, next) {
			t.Errorf("%s imports %s; %s may import %v", path, next, room, allowed)
		}
		for prefix, holders := range walls {
			if strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, module) && !slices.Contains(holders, room) {
				t.Errorf("%s imports %s, which belongs in %v", path, name, holders)
			}
		}
	}
}
