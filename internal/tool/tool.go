// Package tool is the operator's tool, flannel or docker flannel: it asks the
// running plugin over its socket and prints what it answers.
package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/docker-flannel/docker-flannel/internal/doctor"
	"github.com/docker-flannel/docker-flannel/internal/report"
)

// Exit codes.
const (
	Fine        = 0
	Wrong       = 1 // something is wrong, or was refused
	Usage       = 2 // the command line is not understood
	Unreachable = 3 // the plugin does not answer
)

// Socket is where a plugin of this host is reached.
const Socket = "/run/docker/plugins/flannel.sock"

// Options are the world around a command.
type Options struct {
	Args     []string // with the program's own name first
	Out, Err io.Writer
	Colours  bool // Out is a terminal that takes them
	Build    report.Build
	Now      func() time.Time
	Outside  doctor.Opener // what the doctor knows without the plugin
}

// tool is one command under way.
type tool struct {
	Options
	client *client
	json   bool
	all    bool
	ran    bool // the command line was understood
}

const about = `flannel shows and tends this host's flannel networks. It asks the plugin
docker-flannel over its socket, so it needs root.

Exit codes: 0 fine; 1 something is wrong, or the plugin refused; 2 the command
line is not understood; 3 the plugin does not answer.`

// Run carries out one command and returns its exit code.
func Run(ctx context.Context, opt Options) int {
	t := &tool{Options: opt, client: &client{}}
	args, plugin := dockerArgs(opt.Args)
	if slices.Equal(args, []string{metadataCall}) {
		return t.exit(t.metadata())
	}
	root := t.root(plugin)
	root.SetArgs(args)
	return t.exit(root.ExecuteContext(ctx))
}

// exit turns an error into an exit code, and says it.
func (t *tool) exit(err error) int {
	switch {
	case err == nil:
		return Fine
	case errors.Is(err, errWrong):
		return Wrong // it has been said
	case errors.Is(err, errSick):
		return Unreachable // and that
	}
	say := func(code int, next string) int {
		_, _ = fmt.Fprintf(t.Err, "flannel: %v%s\n", err, next)
		return code
	}
	switch {
	case errors.Is(err, errUnreachable):
		return say(Unreachable, "")
	case t.ran:
		return say(Wrong, "")
	}
	return say(Usage, "; see flannel --help")
}

// errWrong is a command's answer that something is wrong.
var errWrong = errors.New("something is wrong")

func (t *tool) root(plugin bool) *cobra.Command {
	root := &cobra.Command{
		Use: "flannel", Short: "Show and tend this host's flannel networks", Long: about,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		PersistentPreRun: func(*cobra.Command, []string) { t.ran = true },
	}
	if plugin {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "docker flannel"}
	}
	root.SetOut(t.Out)
	root.SetErr(t.Err)
	root.PersistentFlags().StringVar(&t.client.socket, "socket", Socket, "the plugin's socket")
	root.PersistentFlags().BoolVar(&t.json, "json", false, "print JSON")
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.AddCommand(t.statusCommand(), t.leasesCommand(), t.envCommand(), t.leaveCommand(), t.networkCommand(), t.doctorCommand(), t.versionCommand())
	return root
}

// print writes v as JSON where that is asked for, and as text otherwise.
func (t *tool) print(v any, text func(p *printer)) error {
	if t.json {
		e := json.NewEncoder(t.Out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	p := &printer{colours: t.Colours}
	text(p)
	_, err := io.WriteString(t.Out, p.text.String())
	return err
}

// dockerArgs are the arguments without those that the docker command adds, and
// whether it is docker that calls.
func dockerArgs(args []string) (own []string, plugin bool) {
	if len(args) == 0 {
		return nil, false
	}
	own = args[1:]
	if filepath.Base(args[0]) != "docker-flannel" {
		return own, false
	}
	i := slices.Index(own, "flannel")
	if i < 0 {
		return own, true
	}
	head := own[:i]
	if len(head) > 0 && (head[0] == cobra.ShellCompRequestCmd || head[0] == cobra.ShellCompNoDescRequestCmd) {
		return append([]string{head[0]}, own[i+1:]...), true
	}
	return own[i+1:], true // before it are docker's own flags
}

// metadataCall is how docker asks a CLI plugin what it is.
const metadataCall = "docker-cli-plugin-metadata"

func (t *tool) metadata() error {
	t.ran = true
	return json.NewEncoder(t.Out).Encode(map[string]string{
		"SchemaVersion": "0.1.0", "Vendor": "docker-flannel", "Version": t.Build.Version,
		"ShortDescription": "Show and tend this host's flannel networks",
	})
}
