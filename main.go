// Command flannel is the plugin's process: docker-flannel gives plain Docker
// engines flannel's network.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/docker-flannel/docker-flannel/plugin"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintf(os.Stderr, "flannel: unknown argument %q; the engine starts the plugin without arguments\n", os.Args[1])
		os.Exit(2)
	}
	log, level := plugin.NewLog(os.Stdout, os.Stderr)
	if err := serve(log, level); err != nil {
		log.Error("stopped", "error", err)
		os.Exit(1)
	}
}

// serve runs the plugin until the engine stops it.
func serve(log *slog.Logger, level *slog.LevelVar) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return plugin.Run(ctx, plugin.DefaultPaths, log, level)
}
