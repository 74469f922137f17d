//go:build lab

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/recipe"
)

// TestSecureEtcd is docs/security.md on two hosts: certificates made as it says,
// the first host's etcd open to who has one, and to nobody else.
func TestSecureEtcd(t *testing.T) {
	one, two := cluster.hosts[0], cluster.hosts[1]
	commands, err := recipe.Read("../../docs/security.md", "### Certificates with openssl")
	if err != nil {
		t.Fatal(err)
	}
	hosts := fmt.Sprintf("%s %s", one.Addr(), two.Addr())
	made := exec.CommandContext(t.Context(), "sh", "-euc", strings.Replace(commands, "10.0.0.1 10.0.0.2", hosts, 1))
	made.Dir = t.TempDir()
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	url := fmt.Sprintf("https://%s:2379", one.Addr())
	for i, h := range cluster.hosts {
		sh(t, h, "rm -rf /etc/docker-flannel")
		if err := h.CopyIn(t.Context(), fmt.Sprintf("%s/%s", made.Dir, h.Addr()), "/etc/docker-flannel"); err != nil {
			t.Fatal(err)
		}
		from := len(engineLog(t, h))
		installWith(t, h, []string{"ETCD_LISTEN=" + url, "ETCD_ENDPOINTS=" + url}[i], "certs.source=/etc/docker-flannel",
			"ETCD_CAFILE=/certs/ca.pem", "ETCD_CERTFILE=/certs/host.pem", "ETCD_KEYFILE=/certs/host.key", "LOG_LEVEL=debug")
		defer func() {
			log := engineLog(t, h)[from:]
			for _, word := range []string{"PRIVATE KEY", "may change the network of all hosts", "may read a secret"} {
				if strings.Contains(log, word) {
					t.Errorf("%s: %q is in the log", h.Name(), word)
				}
			}
		}()
	}
	create(t, cluster.hosts)
	a, b := start(t, one, "sa", "busybox", "sleep", "600"), start(t, two, "sb", "busybox", "sleep", "600")
	docker(t, one, "exec", "sa", "ping", "-c", "2", "-i", "0.2", "-w", "5", b)
	docker(t, two, "exec", "sb", "ping", "-c", "2", "-i", "0.2", "-w", "5", a)

	green(t, cluster.hosts) // the doctor finds the certificates by the plugin's settings

	// A third client: refused without a certificate, and let in with one.
	ask := []string{"--command-timeout=10s", "--dial-timeout=10s", "get", "--prefix", "--keys-only", prefix + "/subnets/"}
	mine := fmt.Sprintf("%s/%s", made.Dir, two.Addr())
	without := []string{"--cacert=" + mine + "/ca.pem"}
	with := append([]string{"--cert=" + mine + "/host.pem", "--key=" + mine + "/host.key"}, without...)
	if out, err := cluster.lab.Etcdctl(t.Context(), url, append(without, ask...)...); err == nil {
		t.Errorf("without a certificate etcd answers:\n%s", out)
	}
	if out, err := cluster.lab.Etcdctl(t.Context(), strings.Replace(url, "https", "http", 1), ask...); err == nil {
		t.Errorf("without TLS etcd answers:\n%s", out)
	}
	out, err := cluster.lab.Etcdctl(t.Context(), url, append(with, ask...)...)
	if err != nil {
		t.Fatalf("with a certificate: %v", err)
	}
	contains(t, "the leases", out, head(a)+".0-24", head(b)+".0-24")
}
