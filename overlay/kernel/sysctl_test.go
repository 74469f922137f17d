package kernel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestSysctl(t *testing.T) {
	root := t.TempDir()
	set := func(key, value string) {
		name := filepath.Join(root, key)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("ipv4/ip_forward", "0\n")
	set("ipv4/ip_local_port_range", "32768\t60999\n")
	k, err := Open(Options{SysNet: root})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	want := State{Sysctls: []Sysctl{
		{"ipv4/ip_forward", "1"},
		{"ipv4/ip_local_port_range", "32768 60999"},
		{"ipv4/conf/fl-blue/rp_filter", "0"},
		{"ipv6/conf/fl-blue/disable_ipv6", "1"},
	}}
	read := func() string {
		v := newView()
		if err := k.takeSysctls(v, want); err != nil {
			t.Fatal(err)
		}
		return v.state().String()
	}
	// Without IPv6 in the kernel it is off already.
	if got := read(); got != "sysctl ipv4/ip_forward = 0\nsysctl ipv4/ip_local_port_range = 32768 60999\nsysctl ipv6/conf/fl-blue/disable_ipv6 = 1\n" {
		t.Errorf("without IPv6:\n%s", got)
	}
	if err := k.writeSysctl(want.Sysctls[3]); err != nil {
		t.Errorf("without IPv6: %v", err)
	}
	set("ipv6/conf/all/disable_ipv6", "0\n")
	if got := read(); got != "sysctl ipv4/ip_forward = 0\nsysctl ipv4/ip_local_port_range = 32768 60999\n" {
		t.Errorf("with IPv6:\n%s", got)
	}
	if err := k.writeSysctl(want.Sysctls[3]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing device: %v", err)
	}
	if err := k.writeSysctl(want.Sysctls[0]); err != nil {
		t.Error(err)
	}
	if got, err := k.readSysctl("ipv4/ip_forward"); got != "1" || err != nil {
		t.Errorf("written: %q, %v", got, err)
	}
}

func TestSysctlLink(t *testing.T) {
	for key, want := range map[string]string{
		"ipv4/ip_forward": "", "ipv4/conf/all/rp_filter": "", "ipv6/conf/default/disable_ipv6": "",
		"ipv6/conf/flannel.1/disable_ipv6": "flannel.1", "ipv4/neigh/fl-a/gc_stale_time": "fl-a", "bridge/x/y/z": "",
	} {
		if got := (Sysctl{Key: key}).link(); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}
