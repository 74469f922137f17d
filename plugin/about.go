package plugin

import (
	"runtime"
	"runtime/debug"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// About says what this binary is made of, as the compiler has noted it.
func About() report.Build {
	b := report.Build{Version: "(devel)", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}
