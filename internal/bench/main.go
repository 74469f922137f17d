// Command bench measures the data path between containers of two hosts, beside
// the limit (host to host) and the alternatives by hand (plain routes, kernel
// VXLAN), in interleaved rounds of one run. Hosts and containers are network
// namespaces on this machine. It needs root and scripts/lab-setup, takes under
// ten minutes, prints a table in Markdown and writes build/bench.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

func main() {
	var plan plan
	flag.IntVar(&plan.rounds, "rounds", 5, "rounds, of which the medians are shown")
	flag.DurationVar(&plan.span, "span", time.Second, "length of one measurement")
	flag.StringVar(&plan.file, "json", "build/bench.json", "file for the figures")
	flag.Parse()
	if err := bench(plan); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan says how long to measure and where to write.
type plan struct {
	rounds int
	span   time.Duration
	file   string
}

// limit bounds the whole run.
const limit = 10 * time.Minute

func bench(plan plan) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	lab, err := netlab.New("", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	s := &scene{ctx: ctx, lab: lab}
	defer func() { err = errors.Join(err, s.close()) }()
	paths, err := s.build()
	if err != nil {
		return err
	}
	var all []section
	for _, m := range modes {
		if err := s.offloads(m); err != nil {
			return err
		}
		rows, err := measureAll(ctx, paths, plan)
		if err != nil {
			return err
		}
		all = append(all, section{Title: m.title, Rows: rows})
	}
	fmt.Print(markdown(all))
	return save(plan.file, all)
}

// mode is how the underlay's interfaces hand packets over.
type mode struct {
	title   string
	offload string // of segmentation, on or off
}

var modes = []mode{
	{"packets at wire size on the underlay, as on a real NIC (segmentation offload off, GRO on)", "off"},
	{"segmentation offload on everywhere: packets of up to 64 KB never leave memory", "on"},
}

// offloads switches segmentation offload on every host's interface and on the
// wire's ends.
func (s *scene) offloads(m mode) error {
	for _, h := range s.hosts {
		if _, err := h.Exec(s.ctx, "ethtool", "-K", "eth0", "tso", m.offload, "gso", m.offload, "gro", "on"); err != nil {
			return err
		}
		if _, err := s.lab.Wire().Exec(s.ctx, "ethtool", "-K", h.Name(), "tso", m.offload, "gso", m.offload, "gro", "on"); err != nil {
			return err
		}
	}
	return nil
}
