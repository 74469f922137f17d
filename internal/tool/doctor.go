package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/docker-flannel/docker-flannel/internal/doctor"
)

// errSick is the doctor's answer that something failed while the plugin does not
// answer.
var errSick = errors.New("the plugin does not answer")

const doctorAbout = `doctor looks for what keeps containers from each other and prints a line for
each check and, where it fails, the command that mends it. It needs root. While
the plugin is down it goes by its settings and state files.

Exit codes: 0 nothing failed; 1 something did; 3 the plugin does not answer, and
the rest was checked.`

func (t *tool) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Find what keeps containers from each other, and the commands that mend it", Long: doctorAbout, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := doctor.Examine(doctor.Look(cmd.Context(), t.doctorOptions()))
			if err := t.print(all, func(p *printer) { p.text.WriteString(doctor.Text(all, t.Colours)) }); err != nil {
				return err
			}
			switch doctor.ExitCode(all) {
			case doctor.ExitUnreachable:
				return errSick
			case doctor.ExitFailed:
				return errWrong
			}
			return nil
		},
	}
	bundle := &cobra.Command{
		Use: "bundle [FILE]", Short: "Write one archive for a bug report, without secrets", Args: cobra.MaximumNArgs(1),
		Long: "bundle writes what the doctor finds, the status, the settings without secrets, the\nlast lines of the plugin's log, this host's devices, routes and rules, and etcd's\nkeys into one .tar.gz; - is standard output.",
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "flannel-" + t.Now().UTC().Format("20060102-150405") + ".tar.gz"
			if len(args) > 0 {
				file = args[0]
			}
			return t.bundle(cmd.Context(), file)
		},
	}
	forget := &cobra.Command{
		Use: "forget SUBNET", Short: "Delete the lease of a host that is gone for good", Args: cobra.ExactArgs(1),
		Long: "forget deletes the lease of a host that is gone for good, so that the others stop\nsending to it before the lease ends by itself. It is refused while that host\nanswers.",
	}
	network := forget.Flags().String("network", "", "the flannel network; the default one if empty")
	forget.RunE = func(cmd *cobra.Command, args []string) error {
		subnet, err := netip.ParsePrefix(args[0])
		if err != nil {
			return fmt.Errorf("%q is not a subnet such as 10.5.34.0/24", args[0])
		}
		return doctor.Forget(cmd.Context(), t.doctorOptions(), *network, subnet)
	}
	cmd.AddCommand(bundle, forget)
	return cmd
}

func (t *tool) doctorOptions() doctor.Options {
	o := doctor.Options{Plugin: t.client.socket, Open: t.Outside, Tool: t.Args[0]}
	if _, plugin := dockerArgs(t.Args); plugin {
		o.Tool = "docker flannel"
	}
	return o
}

// bundle writes the archive, readable by its owner alone.
func (t *tool) bundle(ctx context.Context, file string) error {
	if file == "-" {
		return doctor.Bundle(ctx, t.doctorOptions(), t.Build, t.Out)
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	if err := errors.Join(doctor.Bundle(ctx, t.doctorOptions(), t.Build, out), out.Close()); err != nil {
		return fmt.Errorf("write the bundle %s: %w", file, err)
	}
	_, err = io.WriteString(t.Out, file+"\n")
	return err
}
