package tool

import (
	"github.com/spf13/cobra"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// versions are those of the tool and of the plugin, which has none while it does
// not answer.
type versions struct {
	Tool   report.Build
	Plugin *report.Build `json:",omitempty"`
}

func (t *tool) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "The versions of the tool and of the plugin", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Tool: t.Build}
			s, err := t.client.status(cmd.Context())
			if err == nil {
				v.Plugin = &s.Build
			}
			return t.print(v, func(p *printer) {
				p.line("tool     %s, %s", build(v.Tool), v.Tool.Go)
				if v.Plugin != nil {
					p.line("plugin   %s, %s", build(*v.Plugin), v.Plugin.Go)
				} else {
					p.line("plugin   unknown: %v", err)
				}
			})
		},
	}
}
