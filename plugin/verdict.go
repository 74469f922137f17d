package plugin

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay"
)

// stuck is how long the loop may go without a pass: it makes one every audit.
const stuck = 3 * overlay.AuditInterval

// judge finds what keeps a host from working, and what a person should know
// besides. That etcd does not answer is no problem of a host that has its lease
// on disk: its containers talk and new ones start.
func judge(s report.Status, now time.Time) (problems, notes []report.Finding) {
	problems = judgeLoop(s.Loop, now)
	for _, n := range s.Networks {
		p, m := judgeNetwork(n, s.Store)
		problems, notes = append(problems, p...), append(notes, m...)
	}
	if st := s.Store; st.Asked && !st.Connected {
		notes = append(notes, report.Finding{
			Text: fmt.Sprintf("etcd (%s) does not answer since %s: running containers and new ones on networks that stand are not touched, new networks and other hosts' changes wait: %s",
				strings.Join(st.Endpoints, ","), st.Since.UTC().Format(time.RFC3339), st.Error),
			Next: "see that etcd runs and that this host reaches it",
		})
	}
	return problems, notes
}

func judgeLoop(l report.Loop, now time.Time) (problems []report.Finding) {
	add := func(next, format string, args ...any) {
		problems = append(problems, report.Finding{Text: fmt.Sprintf(format, args...), Next: next})
	}
	switch {
	case hung(l, now):
		add("see the engine's log, then: docker plugin disable -f docker-flannel; docker plugin enable docker-flannel",
			"the loop that keeps the kernel as wanted has not ended a pass for %s", now.Sub(latest(l)).Round(time.Second))
	case l.Passes == 0:
		add("", "the plugin is starting: it has not looked at the kernel yet")
	}
	for _, f := range l.Failures {
		add("", "the kernel is not as wanted: %s: %s", f.Object, f.Error)
	}
	return problems
}

// hung tells whether the loop does not go round any more.
func hung(l report.Loop, now time.Time) bool {
	return !l.Started.IsZero() && now.Sub(latest(l)) > stuck
}

// latest is when the loop was seen to work last.
func latest(l report.Loop) time.Time {
	if l.Passed.After(l.Started) {
		return l.Passed
	}
	return l.Started
}

// judgeNetwork judges one network.
func judgeNetwork(n report.Network, store report.Store) (problems, notes []report.Finding) {
	name, lease := n.Title(), n.Lease
	problem := func(next, format string, args ...any) {
		problems = append(problems, report.Finding{Text: fmt.Sprintf(format, args...), Next: next})
	}
	note := func(next, format string, args ...any) {
		notes = append(notes, report.Finding{Text: fmt.Sprintf(format, args...), Next: next})
	}
	switch lease.State {
	case report.Held, report.None:
	case report.Taken:
		owner := "a lease that cannot be read"
		if lease.TakenBy.IsValid() {
			owner = "host " + lease.TakenBy.String()
		}
		problem(fmt.Sprintf("give the subnet up on one of the two hosts; here: docker network rm %.12s, and create the network anew", n.DockerID),
			"ALARM: subnet %s of %s is this host's and its containers use it, but etcd has it as that of %s", n.Subnet, name, owner)
	case report.Lost:
		problem("", "the lease of subnet %s of %s is gone from etcd and is being claimed back%s", n.Subnet, name, because(lease.Error))
	case report.Unconfirmed:
		if lease.Error != "" && store.Connected {
			problem("", "the lease of subnet %s of %s is not renewed: %s", n.Subnet, name, lease.Error)
		} else {
			note("", "subnet %s of %s is as this host saved it: etcd has not confirmed its lease yet", n.Subnet, name)
		}
	case report.Returning:
		note("docker flannel leave", "the lease of subnet %s of %s is being given back%s", n.Subnet, name, because(lease.Error))
	}
	if n.Blocked != "" {
		problem("", "no packets are carried for %s: %s", name, n.Blocked)
	}
	if len(n.Skipped) > 0 {
		note("docker flannel status lists them", "%d of etcd's entries for %s cannot be used", len(n.Skipped), name)
	}
	return problems, notes
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}
