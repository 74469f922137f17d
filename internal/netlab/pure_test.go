package netlab

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOwnCgroups(t *testing.T) {
	const (
		cgroup1 = `31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup systemd rw,xattr,name=systemd
`
		cgroup2 = "34 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
		pure2   = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	for _, test := range []struct {
		name, own, mounts string
		want              []string
	}{
		{"version 1", "4:memory:/a/b\n3:cpu,cpuacct:/\n2:name=systemd:/s\n", cgroup1,
			[]string{"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/systemd/s"}},
		{"version 2 beside version 1", "4:memory:/a\n0::/u\n", cgroup1 + cgroup2,
			[]string{"/sys/fs/cgroup/memory/a"}},
		{"version 2", "0::/user.slice/session-1.scope\n", pure2,
			[]string{"/sys/fs/cgroup/user.slice/session-1.scope"}},
		{"a part of the hierarchy is mounted", "0::/box/inner\n", strings.Replace(pure2, " / /sys", " /box /sys", 1),
			[]string{"/sys/fs/cgroup/inner"}},
		{"another part is mounted", "0::/box/inner\n", strings.Replace(pure2, " / /sys", " /other /sys", 1), nil},
		{"mounted elsewhere", "0::/\n", strings.Replace(pure2, "/sys/fs/cgroup", "/mnt", 1), nil},
		{"nothing", "", "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ownCgroups(test.own, test.mounts); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLastHost(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.0.2.7/24":   Gateway,
		"203.0.113.5/30": "203.0.113.6",
		"10.1.2.3/8":     "10.255.255.254",
	} {
		if got := lastHost(netip.MustParsePrefix(prefix)); got.String() != want {
			t.Errorf("%s: got %s, want %s", prefix, got, want)
		}
	}
}

func TestAdmit(t *testing.T) {
	lab := &Lab{hosts: make(map[string]*Host)}
	for _, step := range []struct{ name, addr, want string }{
		{"a", "", "192.0.2.1/24"},
		{"b", "192.0.2.2/24", "192.0.2.2/24"},
		{"c", "", "192.0.2.3/24"},
		{"far", "203.0.113.5/24", "203.0.113.5/24"},
		{"a", "", "exists"},
		{"d", "192.0.2.254/24", "gateway"},
		{"d", "2001:db8::1/64", "want IPv4"},
		{"d", "192.0.2.9/32", "room for a gateway"},
		{"br0", "", "host name"},
		{"A", "", "host name"},
		{"a-name-too-long", "", "host name"},
	} {
		spec := HostSpec{Name: step.name}
		if step.addr != "" {
			spec.Addr = netip.MustParsePrefix(step.addr)
		}
		h, err := lab.admit(spec)
		var got string
		if err != nil {
			got = err.Error()
		} else {
			got = h.spec.Addr.String()
		}
		if !strings.Contains(got, step.want) {
			t.Errorf("%s %s: got %q, want %q", step.name, step.addr, got, step.want)
		}
	}
	lab.closed = true
	if _, err := lab.admit(HostSpec{Name: "late"}); !errors.Is(err, errClosed) {
		t.Errorf("a closed lab says %v", err)
	}
}

func TestEmptyDir(t *testing.T) {
	dir := t.TempDir()
	if _, err := emptyDir(filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	if _, err := emptyDir(dir); err == nil {
		t.Error("a folder with content is taken, to be removed later")
	}
	if _, err := emptyDir(filepath.Join(dir, "a:b")); err == nil {
		t.Error("a folder with a colon is taken")
	}
	if _, err := os.Stat(filepath.Join(dir, "a:b")); err == nil {
		t.Error("a refused folder was made")
	}
}
