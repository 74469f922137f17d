//go:build lab

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// What no log may hold unless a test has declared it: an error of the plugin, a
// repair without a fault, something left behind that the sweep found, or an end
// of plugin or engine by itself.
var unwell = regexp.MustCompile(`level=ERROR|` + repairs + `|` + sweeps + `|DATA RACE|(^|")(panic|fatal error): `)

const (
	// repairs is the plugin's word when it mends what somebody has broken.
	repairs = "repaired what others changed"
	// sweeps is its word when it reclaims what the engine did not give back.
	sweeps = `the engine has forgotten was removed|an address that no container has is free again`
	// afterBoot is the same at the start of a host: the engine makes its chains
	// when the plugin is up already.
	afterBoot = repairs + `.*kind=docker-user`
	// etcdAway is the plugin's complaint where etcd does not answer.
	etcdAway = "lease not renewed, trying on.*(no answer|code = Unavailable|etcdserver: )"
)

// declared is what tests expect, and the part of a log that it is expected in.
var declared struct {
	mu  sync.Mutex
	all []*expectation
}

type expectation struct {
	host     string
	from, to int // offsets in the log
	patterns []*regexp.Regexp
}

// expectErrors declares what the log of hosts may say until the test has ended,
// as regular expressions of which one must match the line.
func expectErrors(t testing.TB, hosts []*netlab.Host, patterns ...string) {
	t.Helper()
	for _, h := range hosts {
		e := &expectation{host: h.Name(), from: len(engineLog(t, h)), to: -1}
		for _, p := range patterns {
			e.patterns = append(e.patterns, regexp.MustCompile(p))
		}
		declared.mu.Lock()
		declared.all = append(declared.all, e)
		declared.mu.Unlock()
		t.Cleanup(func() { e.to = len(engineLog(t, h)) })
	}
}

// covers tells whether the line at an offset was declared.
func (e *expectation) covers(host, line string, offset int) bool {
	if e.host != host || offset < e.from || e.to >= 0 && offset >= e.to {
		return false
	}
	for _, p := range e.patterns {
		if p.MatchString(line) {
			return true
		}
	}
	return false
}

// examine returns the lines of a log that are unwell and were not declared.
func examine(host, log string, expected []*expectation) (found []string) {
	offset := 0
lines:
	for line := range strings.Lines(log) {
		at := offset
		offset += len(line)
		if !unwell.MatchString(line) {
			continue
		}
		for _, e := range expected {
			if e.covers(host, line, at) {
				continue lines
			}
		}
		found = append(found, strings.TrimSpace(line))
	}
	return found
}

// healthy reads the logs of all hosts after the tests.
func healthy(hosts []*netlab.Host) error {
	declared.mu.Lock()
	defer declared.mu.Unlock()
	var text strings.Builder
	for _, h := range hosts {
		log, err := os.ReadFile(h.EngineLog())
		if err != nil {
			return err
		}
		for _, line := range examine(h.Name(), string(log), declared.all) {
			fmt.Fprintf(&text, "%s: %s\n", h.Name(), line)
		}
	}
	if text.Len() > 0 {
		return fmt.Errorf("no test declared what these logs say:\n%s", text.String())
	}
	return nil
}

// TestExamine is the probe for healthy: it sees what it is there to see.
func TestExamine(t *testing.T) {
	const (
		fine   = `level=info msg="level=INFO msg=serving" plugin=x` + "\n"
		errs   = `level=error msg="level=ERROR msg=\"lease not renewed, trying on\" error=\"no answer\"" plugin=x` + "\n"
		repair = `level=info msg="level=INFO msg=\"repaired what others changed\" kind=addr" plugin=x` + "\n"
		broken = "panic: runtime error: index out of range\n"
		swarm  = `level=error msg="closing session after fatal error" error="rpc error: code = Canceled desc = context canceled" module=node/agent` + "\n"
		swept  = `level=info msg="level=INFO msg=\"an address that no container has is free again\" address=10.5.6.2" plugin=x` + "\n"
	)
	here := func(from, to int, pattern string) []*expectation {
		return []*expectation{{"host1", from, to, []*regexp.Regexp{regexp.MustCompile(pattern)}}}
	}
	for _, c := range []struct {
		name, log string
		expected  []*expectation
		want      int
	}{
		{"fine", fine + swarm, nil, 0},
		{"everything", fine + errs + repair + swept + broken + "fatal error: all goroutines are asleep\n" +
			`level=error msg="fatal error: stack overflow" plugin=x` + "\nWARNING: DATA RACE\n", nil, 7},
		{"declared", fine + errs, here(0, -1, etcdAway), 0},
		{"declared to the end of a test", errs + fine, here(0, len(errs), etcdAway), 0},
		{"before the test", errs + errs, here(len(errs), -1, etcdAway), 1},
		{"after the test", errs + errs, here(0, len(errs), etcdAway), 1},
		{"another error", errs, here(0, -1, repairs), 1},
		{"another host", errs, []*expectation{{"host2", 0, -1, here(0, 0, etcdAway)[0].patterns}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := examine("host1", c.log, c.expected); len(got) != c.want {
				t.Errorf("found %q, want %d lines", got, c.want)
			}
		})
	}
}
