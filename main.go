// Command flannel is the plugin's process and the operator's tool: docker-flannel
// gives plain Docker engines flannel's network.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/doctor"
	"github.com/docker-flannel/docker-flannel/internal/tool"
	"github.com/docker-flannel/docker-flannel/plugin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx)
	stop()
	os.Exit(code)
}

// run is the plugin where the engine starts it, and the tool everywhere else.
func run(ctx context.Context) int {
	if len(os.Args) == 1 && inPlugin() {
		return serve(ctx)
	}
	return tool.Run(ctx, tool.Options{
		Args: os.Args, Out: os.Stdout, Err: os.Stderr, Colours: colours(os.Stdout), Build: plugin.About(), Now: time.Now,
		Outside: outside,
	})
}

// outside is what the doctor can know of the plugin while that is down.
func outside(settings func(string) (string, bool), state, certs string) (doctor.Outside, error) {
	return plugin.NewOutside(plugin.Outer{Lookup: settings, State: state, Certs: certs})
}

// inPlugin tells whether the engine has started this process in the plugin's own
// root folder, where config.json's mounts are.
func inPlugin() bool {
	at, err := os.Stat(plugin.DefaultPaths.SysNet)
	return err == nil && at.IsDir()
}

// lastWords is how long the end of the process waits for its log to be read.
const lastWords = time.Second

// serve runs the plugin until the engine stops it.
func serve(ctx context.Context) int {
	good, bad := plugin.NewBacklog(os.Stdout), plugin.NewBacklog(os.Stderr)
	defer plugin.Drain(lastWords, good, bad)
	log, level := plugin.NewLog(good, bad)
	if err := plugin.Run(ctx, plugin.DefaultPaths, log, level); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	return 0
}

// colours tells whether a file is a terminal whose user wants them.
func colours(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
