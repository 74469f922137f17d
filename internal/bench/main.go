// Command bench measures the data path between containers of two hosts, beside
// the limit (host to host), the alternatives by hand (plain routes, kernel
// VXLAN) and a naive encapsulator, in interleaved rounds of one run. Hosts and
// containers are network namespaces on this machine; each end of the traffic,
// each host's overlay and each encapsulator is a process of its own. It needs
// root and scripts/lab-setup, takes under ten minutes, prints tables in
// Markdown and writes build/bench.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the benchmark itself, or the role that the first argument names.
func run() error {
	if len(os.Args) > 1 {
		if role := roles[os.Args[1]]; role != nil {
			return role(os.Args[2:])
		}
	}
	var plan plan
	flag.IntVar(&plan.rounds, "rounds", 7, "rounds, of which the medians are shown")
	flag.DurationVar(&plan.span, "span", time.Second, "length of one measurement")
	flag.StringVar(&plan.paths, "only", "", "measure only paths whose names hold one of these words, as in vxlan,routed")
	flag.StringVar(&plan.kinds, "kinds", "", "measure only these of "+strings.Join(kindNames(), ","))
	flag.StringVar(&plan.modes, "modes", "", "measure only with the underlay in these modes: wire,offload")
	flag.StringVar(&plan.file, "json", "build/bench.json", "file for the figures")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("argument %q: only flags are taken, see -help", flag.Arg(0))
	}
	if plan.rounds < 1 || plan.span <= 0 {
		return fmt.Errorf("-rounds %d -span %s: both must be more than nothing", plan.rounds, plan.span)
	}
	return bench(plan)
}

// plan says what to measure, for how long, and where to write.
type plan struct {
	rounds              int
	span                time.Duration
	paths, kinds, modes string // words, separated by commas; empty for all
	file                string
}

// chosen tells whether a name holds one of the words, in any case.
func chosen(name, words string) bool {
	for word := range strings.SplitSeq(words, ",") {
		if strings.Contains(strings.ToLower(name), strings.ToLower(word)) {
			return true
		}
	}
	return false
}

// limit bounds the whole run: ten minutes, or where more is asked for half as long
// again as that.
func (p plan) limit() time.Duration {
	measured := time.Duration(p.rounds*len(kinds)*len(modes)*mostPaths) * p.span
	return max(10*time.Minute, measured*3/2)
}

func bench(plan plan) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, plan.limit())
	defer cancel()
	lab, err := netlab.New("", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	s := &scene{ctx: ctx, lab: lab}
	defer func() { err = errors.Join(err, s.close()) }()
	paths, err := s.build(plan.paths)
	if err != nil {
		return err
	}
	var all []section
	for _, m := range modes {
		if !chosen(m.name, plan.modes) {
			continue
		}
		if err := s.underlay(m); err != nil {
			return err
		}
		rounds, err := s.measureAll(m, paths, plan)
		if err != nil {
			return err
		}
		all = append(all, newSection(m.title, paths, rounds))
	}
	if len(all) == 0 {
		return fmt.Errorf("-modes %s names no mode: wire and offload are accepted", plan.modes)
	}
	fmt.Print(markdown(all))
	return save(plan.file, all)
}
