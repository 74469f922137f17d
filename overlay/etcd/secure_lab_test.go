//go:build lab

package etcd

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
	"github.com/docker-flannel/docker-flannel/internal/recipe"
	"github.com/docker-flannel/docker-flannel/overlay"
)

const (
	document   = "../../docs/security.md"
	rootSecret = "root-marker-secret"
	hostSecret = "host-marker-secret"
)

// castle is a real etcd that asks for everything: certificates, and a user with
// a password. Its administrator and the hosts' user are as docs/security.md
// makes them.
type castle struct {
	*process
	dir   string // with host.pem, host.key, ca.pem, password
	ca    *authority
	admin Options
	user  Options // may read and write the default prefix
}

// newCastle starts one; args are further flags of etcd.
func newCastle(t *testing.T, args ...string) *castle {
	t.Helper()
	c := &castle{dir: t.TempDir()}
	c.ca = newCA(t, c.dir)
	c.ca.issue(t, c.dir, "server")
	c.ca.issue(t, c.dir, "host")
	c.process = newProcess(t, "https", append([]string{"--bcrypt-cost", "4", "--client-cert-auth",
		"--cert-file", c.file("server.pem"), "--key-file", c.file("server.key"), "--trusted-ca-file", c.file("ca.pem")}, args...)...)
	c.start(t)
	c.write(t, "root.password", rootSecret)
	c.write(t, "flannel.password", hostSecret)
	c.write(t, "password", hostSecret+"\n")
	c.user = Options{Endpoints: []string{c.endpoint}, CAFile: c.file("ca.pem"), CertFile: c.file("host.pem"), KeyFile: c.file("host.key"),
		Username: "flannel", PasswordFile: c.file("password")}
	c.admin = c.user
	c.admin.Username, c.admin.Password, c.admin.PasswordFile = "root", rootSecret, ""
	dialAs(t, c.admin).Get(t.Context(), "/") // waits for etcd
	c.follow(t, "### Authentication in etcd")
	c.follow(t, "### A user with the least rights")
	return c
}

func (c *castle) file(name string) string { return filepath.Join(c.dir, name) }

func (c *castle) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(c.file(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// follow runs the commands of the document as etcd's administrator.
func (c *castle) follow(t *testing.T, heading string) {
	t.Helper()
	commands, err := recipe.Read(document, heading)
	if err != nil {
		t.Fatal(err)
	}
	c.sh(t, commands)
}

func (c *castle) sh(t *testing.T, commands string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", commands)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3", "ETCDCTL_ENDPOINTS="+c.endpoint,
		"ETCDCTL_CACERT=ca.pem", "ETCDCTL_CERT=host.pem", "ETCDCTL_KEY=host.key", "ETCDCTL_USER=root:"+rootSecret)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

func (c *castle) world(t testing.TB, stores Options) *world {
	w := newWorldOf(t, c.admin, stores)
	w.prefix = DefaultPrefix
	w.store = w.newStore(t)
	return w
}

// TestSecureProcess runs the suite as a user whose role is limited to the prefix,
// over mutual TLS.
func TestSecureProcess(t *testing.T) {
	c := newCastle(t)
	c.sh(t, "etcdctl role grant-permission flannel --prefix=true readwrite /"+t.Name()+"/")
	suite(t, func(t testing.TB, user Options) *world { return newWorldOf(t, c.admin, user) }, c.user)
}

// TestLeastRights: a user without the right to write the config uses the one that
// is there, and is told what to grant where it would need more.
func TestLeastRights(t *testing.T) {
	c := newCastle(t)
	other := c.user
	other.Username = "flannel-host"
	c.sh(t, "etcdctl role add reader && etcdctl role grant-permission reader --prefix=true read /coreos.com/network/ && "+
		"etcdctl user add reader --interactive=false <flannel.password && etcdctl user grant-role reader reader && "+
		"etcdctl user add nobody --interactive=false <flannel.password")
	refused := func(user, what string, call func(*Store) error) {
		t.Helper()
		o := c.user
		o.Username = user
		err := call(New(dialAs(t, o), DefaultPrefix))
		mustSay(t, what, err, "permission denied", "ETCD_USERNAME="+user, c.endpoint,
			"etcdctl role grant-permission ROLE --prefix=true readwrite /coreos.com/network/")
	}
	config := func(s *Store) error { return fail(s.Config(t.Context(), "", fixed(stockConfig))) }
	claim := func(s *Store) error { return fail(s.Claim(t.Context(), "", claimOf(7))) }
	refused("nobody", "reading", config)
	refused("reader", "making a config", config)

	c.follow(t, "### A user who may not change the config") // writes the config
	checkStore(t, New(dialAs(t, other), DefaultPrefix))
	refused("reader", "claiming", claim)
	refused("flannel-host", "another network's config", func(s *Store) error {
		return fail(s.Config(t.Context(), "blue", fixed(stockConfig)))
	})
	away := New(dialAs(t, c.user), "/elsewhere")
	mustSay(t, "another prefix", fail(away.Config(t.Context(), "", nil)), "permission denied", "readwrite /elsewhere/")
}

// TestSignsInAgain: etcd forgets tokens by age and when it restarts; calls and
// watches, of which one is open and one begins, go on.
func TestSignsInAgain(t *testing.T) {
	c := newCastle(t, "--auth-token-ttl", "3")
	w := c.world(t, c.user)
	var log logbuf.Buffer
	WithLogger(slog.New(slog.NewTextHandler(&log, nil)))(w.store)
	w.configure(t, stockConfig)
	c1 := claimOf(1)
	c1.Prefer = subnet("10.5.77.0/24") // not one of those written below
	l := w.claim(t, c1)
	first := watch(t, w.store, "")
	first.await(t, "the lease", func(s overlay.Snapshot) bool { return len(s.Leases) == 1 })
	n := 1
	works := func(when string) {
		t.Helper()
		if err := w.store.Keep(t.Context(), "", l); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		second := watch(t, w.store, "")
		n++
		w.put(t, fmt.Sprintf("/subnets/10.5.%d.0-24", 100+n), valueOf(n))
		for _, seen := range []*watcher{first, second} {
			seen.await(t, when+": every lease", func(s overlay.Snapshot) bool { return len(s.Leases) == n })
		}
	}
	works("at first")
	// etcd says when it forgets a token; the store's is the only one of its user.
	if !c.log.Await(`"deleted a simple token","user-name":"flannel"`, patience) {
		t.Fatal("etcd does not forget the token")
	}
	works("after the tokens have expired")
	works("once more")
	if text := log.String(); text != "" {
		t.Errorf("a watch did not go on:\n%s", text)
	}
	c.stop()
	c.start(t)
	works("after a restart of etcd")
}

// TestPasswordChanged: the file is read anew when etcd refuses what it was.
func TestPasswordChanged(t *testing.T) {
	c := newCastle(t)
	w := c.world(t, c.user)
	w.configure(t, stockConfig)
	seen := watch(t, w.store, "")
	seen.await(t, "the config", func(s overlay.Snapshot) bool { return s.Configured })
	const newer = "newer-marker-secret"
	if _, err := w.client.UserChangePassword(t.Context(), "flannel", newer); err != nil {
		t.Fatal(err)
	}
	err := fail(w.store.Config(t.Context(), "", nil))
	mustSay(t, "the old password", err, "authentication failed", "ETCD_USERNAME=flannel", "ETCD_PASSWORD_FILE="+c.file("password"), "etcdctl user passwd flannel")
	c.write(t, "password", newer+"\n")
	if _, err := w.store.Config(t.Context(), "", nil); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if err := os.Remove(c.file("password")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.UserChangePassword(t.Context(), "flannel", newer); err != nil { // ends its sessions
		t.Fatal(err)
	}
	mustSay(t, "no file", fail(w.store.Config(t.Context(), "", nil)), "ETCD_PASSWORD_FILE="+c.file("password"), "no such file", "certs.source")
	c.write(t, "password", newer)
	w.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	seen.await(t, "the lease", func(s overlay.Snapshot) bool { return len(s.Leases) == 1 })
}

// TestCertificatesRenewed: a client goes on with the files that lie there now.
func TestCertificatesRenewed(t *testing.T) {
	c := newCastle(t)
	w := c.world(t, c.user)
	short := c.user
	short.CallTimeout = 2 * time.Second
	s := New(dialAs(t, short), DefaultPrefix)
	w.configure(t, stockConfig)
	seen := watch(t, s, "")
	seen.await(t, "the config", func(s overlay.Snapshot) bool { return s.Configured })

	// Another CA, at first for etcd alone.
	next := t.TempDir()
	ca := newCA(t, next)
	ca.issue(t, next, "server")
	ca.issue(t, next, "host")
	old := t.TempDir()
	c.sh(t, "cp ca.pem "+old+" && cp "+next+"/server.* . && cp "+next+"/ca.pem trusted.pem")
	c.args = append(c.args, "--trusted-ca-file", c.file("trusted.pem"))
	c.stop()
	c.start(t)
	config := func() error { return fail(s.Config(t.Context(), "", nil)) }
	soonSays(t, "the old CA", config, "not signed by ETCD_CAFILE="+c.file("ca.pem"))
	c.sh(t, "cp "+next+"/ca.pem .")
	soonSays(t, "the old certificate", config, "refuses the client certificate ETCD_CERTFILE="+c.file("host.pem"))
	c.sh(t, "cp "+next+"/host.* .")
	w = c.world(t, c.user)
	w.put(t, "/subnets/10.5.1.0-24", valueOf(1))
	seen.await(t, "the lease", func(s overlay.Snapshot) bool { return len(s.Leases) == 1 })
	checkStore(t, s)
}
