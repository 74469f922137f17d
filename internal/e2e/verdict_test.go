//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// check is one shot and its place in the table.
type check struct {
	shot
	direction int
	from, to  place
	ears      string // who may hear it
	control   bool   // it must arrive
	byHost    bool   // it is the host that sends
}

// checks aims every direction from every network of every host at all the
// others, and makes the controls.
func (m *matrix) checks() (all []check) {
	add := func(c check) {
		c.Mark = "m" + strconv.Itoa(len(all))
		all = append(all, c)
	}
	for d, dir := range directions {
		for _, from := range m.places {
			for _, to := range m.places {
				s, ok := dir.aim(m, from, to)
				if from.nth != 0 || !ok {
					continue
				}
				c := check{shot: s, direction: d, from: from, to: to, ears: m.id(to)}
				if from.net == to.net {
					// The other container here, the first one there.
					if c.control = dir.control == within; c.control && (from.host == to.host) == (to.nth == 1) {
						add(c)
					}
					continue
				}
				if to.nth != 0 {
					continue
				}
				add(c)
				c.control = true
				switch dir.control {
				case within: // above
				case outside:
					c.Dst, c.ears = netip.MustParseAddr(netlab.Outside), "outside"
					add(c)
				case byHost:
					c.byHost, c.Routed = true, true
					if c.Tunnel.Port != 0 { // by the peer, which may
						c.from = m.at(1-to.host, from.net, 0)
						c.Tunnel.Src = m.hosts[1-to.host].Addr()
					} else {
						c.Src, c.Dst = from.gateway, to.bridge
					}
					add(c)
				}
			}
		}
	}
	return all
}

// controls are the checks that must arrive, under other marks.
func controls(checks []check) (out []check) {
	for _, c := range checks {
		if c.control {
			c.Mark = "again-" + c.Mark
			out = append(out, c)
		}
	}
	return out
}

// fire sends all, those of one container at once.
func (m *matrix) fire(t *testing.T, checks []check) {
	t.Helper()
	for _, from := range m.places {
		for byHost, where := range map[bool][]string{true: {}, false: {"nsenter", "-t", from.pid, "-n"}} {
			var shots []shot
			for _, c := range checks {
				if c.from == from && c.byHost == byHost {
					shots = append(shots, c.shot)
				}
			}
			if len(shots) == 0 {
				continue
			}
			order, err := json.Marshal(shots)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.hosts[from.host].Exec(t.Context(), "env", append(where, "env", roleEnv+"=shoot", tool, string(order))...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// await waits for all controls.
func (m *matrix) await(t *testing.T, checks []check) {
	t.Helper()
	wait(t, "the controls", func() error {
		var missing []string
		heard := m.marks()
		for _, c := range checks {
			if c.control && !heard[c.ears][c.Mark] {
				missing = append(missing, fmt.Sprintf("%s, from %s to %s, heard %s: %+v", directions[c.direction].name, m.id(c.from), m.id(c.to), c.ears, c.shot))
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("%d are missing:\n%s", len(missing), strings.Join(missing[:min(len(missing), 20)], "\n"))
		}
		return nil
	})
}

// marks is what has come where.
func (m *matrix) marks() map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for who, marks := range m.heard {
		all[who] = map[string]bool{}
		for _, mark := range marks() {
			all[who][mark] = true
		}
	}
	return all
}

// tally counts shots.
type tally struct{ sent, came int }

func (t *tally) add(came bool) {
	t.sent++
	if came {
		t.came++
	}
}

func (t tally) String() string {
	if t.sent == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d", t.came, t.sent)
}

// report is the table of one egress mode. Whatever came to another network is an
// error too.
func (m *matrix) report(t *testing.T, checks []check) string {
	t.Helper()
	heard := m.marks()
	type row struct{ control, here, there tally }
	rows := make([]row, len(directions))
	reach := make([][]bool, len(plans))
	for i := range reach {
		reach[i] = make([]bool, len(plans))
	}
	for _, c := range checks {
		r, came := &rows[c.direction], heard[c.ears][c.Mark]
		if c.ears == m.id(c.to) && !c.byHost && came {
			reach[c.from.net][c.to.net] = true
		}
		switch {
		case c.control:
			r.control.add(came)
			continue
		case c.from.host == c.to.host:
			r.here.add(came)
		default:
			r.there.add(came)
		}
		if came {
			t.Errorf("%s: %s reaches %s: %+v", directions[c.direction].name, m.id(c.from), m.id(c.to), c.shot)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nEgress by %s:\n\n| a packet sent | control: arrives | to another network, same host | to another network, other host |\n|---|---|---|---|\n", m.egress.name)
	for d, r := range rows {
		if r.control.sent == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s, %s | %s | %s |\n", directions[d].name, r.control, directions[d].control, r.here, r.there)
	}
	b.WriteString("\n| from, to |")
	for _, p := range plans {
		fmt.Fprintf(&b, " %s (%s) |", p.name, p.backend)
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(plans)) + "|\n")
	for i, p := range plans {
		fmt.Fprintf(&b, "| %s |", p.name)
		for j := range plans {
			fmt.Fprintf(&b, " %s |", map[bool]string{true: "arrives", false: "–"}[reach[i][j]])
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (c control) String() string {
	return [...]string{"within the network", "to an address outside", "sent by a host itself"}[c]
}

const networksDoc = "../../docs/networks.md"

// golden holds text against what docs/networks.md has between the marks of a
// part, or writes it there.
func golden(t *testing.T, part, text string) {
	t.Helper()
	doc, err := os.ReadFile(networksDoc)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+part+": written by a test -->\n", "<!-- end of "+part+" -->"
	before, rest, found := strings.Cut(string(doc), begin)
	have, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no part between %q and %q", networksDoc, begin, end)
	}
	if slices.Equal(strings.Fields(have), strings.Fields(text)) {
		return
	}
	if os.Getenv("E2E_WRITE") == "" {
		t.Errorf("%s says\n%s\nobserved was\n%s\nE2E_WRITE=1 writes it there", networksDoc, have, text)
		return
	}
	if err := os.WriteFile(networksDoc, []byte(before+begin+text+"\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
