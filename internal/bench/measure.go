package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
)

// figures are measurements by their names.
type figures map[string]float64

// The figures' names, as the tables and the file show them.
const (
	tcp1  = "TCP 1 stream Gbit/s"
	tcp4  = "TCP 4 streams Gbit/s"
	cpu1  = "CPU s/GB" // of the whole machine, one stream
	cpu4  = "CPU s/GB, 4 streams"
	small = "small UDP kpps"
	p50   = "p50 µs"
	p99   = "p99 µs"
)

// kind is something to measure.
type kind struct {
	name   string
	client []string // the client role's first arguments
	prints []string // what the client prints
	frame  int      // bytes of the largest packet that crosses a wire; 0 where that is no question
}

// Bytes of what surrounds a datagram's payload on the wire.
const (
	ethernet   = 14
	udpHeaders = 28
	tunnel     = 50 // VXLAN's, the largest
	wireMTU    = 1500
	// others is how far the hosts' own few packets may raise the mean size.
	others = 1.05
)

var kinds = []kind{
	{"tcp1", []string{"stream", "1"}, []string{tcp1, cpu1}, ethernet + wireMTU},
	{"tcp4", []string{"stream", "4"}, []string{tcp4, cpu4}, ethernet + wireMTU},
	{"udp", []string{"datagrams"}, []string{small}, ethernet + tunnel + udpHeaders + smallSize},
	{"rr", []string{"responses"}, []string{p50, p99}, 0},
}

func kindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// measureAll returns, for every path, the figures of every round. A round
// takes each kind on every path in turn, so that what is compared is measured
// within seconds, and in another order each time, so that none is always behind
// the same one and has what that leaves: warm caches, or a processor's hot state.
func (s *scene) measureAll(m mode, paths []path, plan plan) ([][]figures, error) {
	if !slices.ContainsFunc(kinds, func(k kind) bool { return chosen(k.name, plan.kinds) }) {
		return nil, fmt.Errorf("-kinds %s names none of %s", plan.kinds, strings.Join(kindNames(), ", "))
	}
	all := make([][]figures, len(paths))
	for round := range plan.rounds {
		fmt.Fprintf(os.Stderr, "%s: round %d of %d\n", m.name, round+1, plan.rounds)
		for i := range paths {
			all[i] = append(all[i], figures{})
		}
		for _, k := range kinds {
			if !chosen(k.name, plan.kinds) {
				continue
			}
			for _, at := range rand.Perm(len(paths)) {
				if err := s.measure(m, k, paths[at], plan.span.String(), all[at][round]); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", paths[at].name, k.name, err)
				}
			}
		}
	}
	return all, nil
}

// measure adds one kind's figures, and makes sure of the packets' size.
func (s *scene) measure(m mode, k kind, p path, span string, into figures) error {
	before, err := s.sent(p.host)
	if err != nil {
		return err
	}
	out, err := s.ask(p.from, "client", append(k.client, p.addr.String(), span)...)
	if err != nil {
		return err
	}
	words := strings.Fields(out)
	if len(words) != len(k.prints) {
		return fmt.Errorf("the client prints %q, want %q", out, k.prints)
	}
	for i, name := range k.prints {
		value := into[name]
		if _, err := fmt.Sscan(words[i], &value); err != nil {
			return fmt.Errorf("the client prints %q: %w", out, err)
		}
		into[name] = value
	}
	after, err := s.sent(p.host)
	if err != nil {
		return err
	}
	if k.frame == 0 {
		return nil
	}
	frame := after.since(before)
	into["bytes a packet, "+k.name] = frame
	if m.wire && frame > others*float64(k.frame) {
		return fmt.Errorf("packets of %.0f bytes leave host %s, and at most %d cross a wire: segmentation offload is on somewhere, see ethtool -k eth0",
			frame, p.host.Name(), k.frame)
	}
	return nil
}
