package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// roles are what this program does when it is started again in a namespace:
// on a user's machines, too, the ends of the traffic and what carries it are
// processes that share nothing. Their end is the lab's.
var roles = map[string]func(args []string) error{
	"server": serverRole,
	"client": clientRole,
	"member": memberRole,
	"naive":  naiveRole,
}

// ready begins the line by which a role says that it does its work.
const ready = "ready"

// command is how a role is started. The client has the first half of the
// processors that this process may use and the server the second, as hosts
// share none: ends that do share one answer each other in less than half the
// time, or not, as the scheduler has it. What carries the packets has all.
func command(role string, args []string) ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv := append([]string{exe, role}, args...)
	if role != "member" { // which is as the plugin is
		argv = append([]string{"env", quiet}, argv...)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask for this process's processors: %w", err)
	}
	var all []string
	for i := 0; len(all) < set.Count(); i++ {
		if set.IsSet(i) {
			all = append(all, strconv.Itoa(i))
		}
	}
	half := map[string][]string{"client": all[:len(all)/2], "server": all[len(all)/2:]}[role]
	if len(half) == 0 || len(all) < 2 {
		return argv, nil
	}
	return append([]string{"taskset", "-c", strings.Join(half, ",")}, argv...), nil
}

// play starts a role in a namespace and returns what it says when it is ready.
func (s *scene) play(h *netlab.Host, role string, args ...string) (string, error) {
	argv, err := command(role, args)
	if err != nil {
		return "", err
	}
	p, err := h.Start(argv[0], argv[1:]...)
	if err != nil {
		return "", err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(p.Log())
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			if said, ok := strings.CutPrefix(line, ready); ok && strings.HasSuffix(said, "\n") {
				return strings.TrimSpace(said), nil
			}
		}
		select {
		case <-p.Done():
			return "", errors.Join(fmt.Errorf("%s: role %s ended: %s", h.Name(), role, text), p.Wait())
		case <-s.ctx.Done():
			return "", fmt.Errorf("%s: role %s is not ready: %w: %s", h.Name(), role, s.ctx.Err(), text)
		case <-tick.C:
		}
	}
}

// ask runs a role to its end and returns what it prints.
func (s *scene) ask(h *netlab.Host, role string, args ...string) (string, error) {
	argv, err := command(role, args)
	if err != nil {
		return "", err
	}
	return h.Exec(s.ctx, argv[0], argv[1:]...)
}
