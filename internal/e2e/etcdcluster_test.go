//go:build lab

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/netlab"
)

// member is one of three etcd servers on the wire.
type member struct {
	client, peer string // URLs
	dir          string
	proc         *netlab.Proc
	gone         bool
}

// quorum is an etcd cluster of three.
type quorum []*member

func newQuorum(t *testing.T) quorum {
	t.Helper()
	q := make(quorum, 3)
	dir := t.TempDir()
	for i := range q {
		q[i] = &member{
			client: fmt.Sprintf("http://%s:%d", netlab.Gateway, 23790+i), peer: fmt.Sprintf("http://%s:%d", netlab.Gateway, 23800+i),
			dir: fmt.Sprintf("%s/%d", dir, i),
		}
	}
	for i := range q {
		q.start(t, i)
	}
	return q
}

func (q quorum) start(t *testing.T, i int) {
	t.Helper()
	var all []string
	for j, m := range q {
		all = append(all, fmt.Sprintf("m%d=%s", j, m.peer))
	}
	m := q[i]
	p, err := cluster.lab.Wire().Start("etcd", "--name", fmt.Sprintf("m%d", i), "--data-dir", m.dir,
		"--listen-client-urls", m.client, "--advertise-client-urls", m.client,
		"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new")
	if err != nil {
		t.Fatal(err)
	}
	m.proc, m.gone = p, false
	t.Cleanup(p.Kill)
}

func (q quorum) endpoints() string {
	var all []string
	for _, m := range q {
		all = append(all, m.client)
	}
	return strings.Join(all, ",")
}

// leader is the number of the leading member, of those that live.
func (q quorum) leader(t *testing.T) (leader int) {
	t.Helper()
	wait(t, "a leader", func() error {
		for i, m := range q {
			if m.gone {
				continue
			}
			out, err := cluster.lab.Etcdctl(t.Context(), m.client, "endpoint", "status", "-w", "fields")
			if err != nil {
				return err
			}
			id, lead := field(out, `"MemberID" :`), field(out, `"Leader" :`)
			if id == lead && id != "" {
				leader = i
				return nil
			}
		}
		return fmt.Errorf("none of %s", q.endpoints())
	})
	return leader
}

func field(text, name string) string {
	_, rest, _ := strings.Cut(text, name)
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func (q quorum) kill(i int) {
	q[i].proc.Kill()
	q[i].gone = true
}

// TestEtcdCluster takes the leader of three etcd servers away, then a second one,
// and brings them back.
func TestEtcdCluster(t *testing.T) {
	expectErrors(t, cluster.hosts, etcdAway)
	q := newQuorum(t)
	q.leader(t)
	s := &scene{hosts: cluster.hosts}
	for _, h := range s.hosts {
		installWith(t, h, "ETCD_ENDPOINTS="+q.endpoints())
	}
	s.furnish(t)
	leases := func() string {
		out, err := cluster.lab.Etcdctl(t.Context(), q.endpoints(), "get", "--prefix", prefix+"/subnets/")
		if err != nil {
			t.Error(err)
		}
		return out
	}
	before := leases()
	hearts := s.hearts(t)
	lead := q.leader(t)
	q.kill(lead)
	s.sound(t)
	second := (lead + 1) % 3
	q.kill(second)
	s.sound(t)
	q.start(t, lead)
	q.start(t, second)
	q.leader(t)
	s.sound(t)
	calm(t, hearts, 0)
	if after := leases(); after != before {
		t.Errorf("leases before:\n%s\nafter:\n%s", before, after)
	}
	// With two of three a network can be made, and the host's subnet is its own.
	q.kill(q.leader(t))
	q.leader(t)
	h := s.hosts[1]
	docker(t, h, "rm", "-f", echoes[1])
	docker(t, h, "network", "rm", network)
	docker(t, h, "network", "create", "-d", "flannel", "--ipam-driver", "flannel", "--subnet", cidr, network)
	docker(t, h, append([]string{"run", "-d", "--name", echoes[1], "--network", network, "--ip", s.addrs[1]}, echoArgs("--restart", "always")...)...)
	s.sound(t)
}
