package plugin

import (
	"encoding/json"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func read(pairs map[string]string) (Settings, error) {
	return ReadSettings(func(name string) (string, bool) {
		value, given := pairs[name]
		return value, given
	})
}

func TestDefaultSettings(t *testing.T) {
	s, err := read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(s.Config), `{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`; got != want {
		t.Errorf("config %s, want %s", got, want)
	}
	if s.Listen != "http://127.0.0.1:2379" || s.Prefix != "/coreos.com/network" || s.LogLevel != slog.LevelInfo || s.MTU != 0 {
		t.Errorf("%+v", s)
	}
}

func TestEmptySettingsAreDefaults(t *testing.T) {
	empty := map[string]string{}
	for _, s := range AllSettings {
		empty[s.Name] = " "
	}
	got, err := read(empty)
	if err != nil {
		t.Fatal(err)
	}
	want, err := read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestGoodSettings(t *testing.T) {
	s, err := read(map[string]string{
		"ETCD_ENDPOINTS": "https://10.0.0.1:2379, http://[fd00::1]:2379,",
		"ETCD_PREFIX":    "/net/", "BACKEND": `{"Type":"vxlan","VNI":7}`, "NETWORK": "10.9.3.0/16", "SUBNET_LEN": "26",
		"IPV6_NETWORK": "fd00:9::1/48", "PUBLIC_IPV6": "fd00:c0::9",
		"NETWORK_POOL": "base=10.64.0.0/10,size=18,ipv6-base=fd00:80::7/40,ipv6-size=56",
		"MTU":          "1400", "LOG_LEVEL": "debug", "PUBLIC_IP": "10.0.0.9", "IFACE": "eth.*",
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Endpoints) != 2 || s.Endpoints[1] != "http://[fd00::1]:2379" || s.Prefix != "/net" {
		t.Errorf("%+v", s)
	}
	if got, want := s.Pool.String(), "base=10.64.0.0/10,size=18,ipv6-base=fd00:80::/40,ipv6-size=56"; got != want {
		t.Errorf("pool %s, want %s", got, want)
	}
	if got, want := string(s.Config), `{"EnableIPv6":true,"Network":"10.9.0.0/16","IPv6Network":"fd00:9::/48","SubnetLen":26,"Backend":{"Type":"vxlan","VNI":7}}`; got != want {
		t.Errorf("config %s, want %s", got, want)
	}
}

func TestWrongSettings(t *testing.T) {
	for _, c := range []struct{ name, value, accepted string }{
		{"METRICS_LISTEN", "9470", "127.0.0.1:9470"},
		{"METRICS_LISTEN", ":0", "127.0.0.1:9470"},
		{"ETCD_ENDPOINTS", "10.0.0.1:2379", "http://10.0.0.1:2379"},
		{"ETCD_ENDPOINTS", "http://10.0.0.1", "a port"},
		{"ETCD_LISTEN", "http://host:2379", "an address"},
		{"ETCD_LISTEN", "https://10.0.0.1:2379", "ETCD_CAFILE, ETCD_CERTFILE and ETCD_KEYFILE"},
		{"ETCD_PREFIX", "net", "/coreos.com/network"},
		{"ETCD_CAFILE", "/nowhere/ca.pem", "certs.source"},
		{"NETWORK", "10.5.0.0", "10.5.0.0/16"},
		{"NETWORK", "fd00::/64", "IPv4"},
		{"SUBNET_LEN", "x", "24"},
		{"SUBNET_LEN", "31", "SubnetLen"},
		{"IPV6_NETWORK", "10.5.0.0/16", "fd00:5::/48"},
		{"IPV6_NETWORK", "fd00:5::/125", "/124 or larger"},
		{"NETWORK_POOL", "10.128.0.0/9", "base=10.128.0.0/9,size=16"},
		{"NETWORK_POOL", "base=10.128.0.0/9,size=25", "up to 24"},
		{"NETWORK_POOL", "base=fd00:80::/40,size=16", "IPv4 network"},
		{"NETWORK_POOL", "base=10.128.0.0/9,size=16,size=18", "size is given twice"},
		{"NETWORK_POOL", "base=10.128.0.0/9,size=16,color=red", "ipv6-base=fd00:80::/40,ipv6-size=56"},
		{"NETWORK_POOL", "base=10.128.0.0/9,size=16,ipv6-base=fd00:80::/40", "ipv6-size=56"},
		{"NETWORK_POOL", "base=10.128.0.0/9,size=16,ipv6-base=10.64.0.0/10,ipv6-size=16", "an IPv6 network"},
		{"NETWORK_POOL", "base=10.128.0.0/9,size=16,ipv6-base=fd00:80::/40,ipv6-size=63", "up to 62"},
		{"NETWORK_POOL", "base=10.128.0.0/9,size=16,ipv6-base=fd00:80::/32,ipv6-size=56", "at most 16 more"},
		{"PUBLIC_IPV6", "10.0.0.1", "fd00:c0::1"},
		{"PUBLIC_IPV6", "fe80::1", "link-local"},
		{"BACKEND", "vxlam", "vxlan"},
		{"BACKEND", `{"Type":`, "JSON"},
		{"IFACE", "eth[", "regular expression"},
		{"PUBLIC_IP", "0.0.0.0", "10.0.0.1"},
		{"MTU", "12", "576"},
		{"LOG_LEVEL", "loud", "debug, info, warn, error"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			_, err := read(map[string]string{c.name: c.value})
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range []string{c.name, c.value, c.accepted} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
		})
	}
}

func TestPasswordsInURLsAreHidden(t *testing.T) {
	for _, name := range []string{"ETCD_ENDPOINTS", "ETCD_LISTEN"} {
		_, err := read(map[string]string{name: "http://root:s3cret@10.0.0.1:2379"})
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "http://(hidden)@10.0.0.1:2379") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllWrongSettingsAreNamed(t *testing.T) {
	_, err := read(map[string]string{"MTU": "x", "LOG_LEVEL": "y", "ETCD_USERNAME": "root", "ETCD_CERTFILE": "/"})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"MTU", "LOG_LEVEL", "ETCD_PASSWORD", "ETCD_KEYFILE"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q lacks %s", err, name)
		}
	}
}

func TestConfigJSONListsTheSettings(t *testing.T) {
	text, err := os.ReadFile("../config.json")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Env []struct {
			Name, Value, Description string
			Settable                 []string
		}
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Env) != len(AllSettings) {
		t.Fatalf("config.json has %d settings, the code %d", len(config.Env), len(AllSettings))
	}
	for i, env := range config.Env {
		s := AllSettings[i]
		if env.Name != s.Name || env.Value != s.Default || env.Description != s.Meaning || len(env.Settable) != 1 {
			t.Errorf("config.json says %+v, the code %s=%s: %s", env, s.Name, s.Default, s.Meaning)
		}
	}
}

func TestReadmeListsTheSettings(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range AllSettings {
		if row := "| `" + s.Name + "` |"; !strings.Contains(string(text), row) {
			t.Errorf("README.md lacks a row %q", row)
		}
	}
}

// FuzzSettings wants that whatever is set is refused by its name, or is a
// config and addresses that everything behind the door can use.
func FuzzSettings(f *testing.F) {
	for _, s := range AllSettings {
		f.Add(s.Name, s.Default)
	}
	f.Add("ETCD_ENDPOINTS", "https://10.0.0.1:2379, http://[fd00::1%25eth0]:2379,")
	f.Add("ETCD_LISTEN", "http://root:s3cret@10.0.0.1:2379")
	f.Add("NETWORK", "::ffff:10.5.0.0/112")
	f.Add("SUBNET_LEN", "-1")
	f.Add("BACKEND", `{"Type":"VXLAN","VNI":1e3}`)
	f.Add("IFACE", "eth(0|1)$")
	f.Add("PUBLIC_IP", "::ffff:10.0.0.1")
	f.Add("LEASE_TTL", "10s500ms")
	f.Fuzz(func(t *testing.T, name, value string) {
		s, err := read(map[string]string{name: value})
		if err != nil {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%q: %v", name, value, err)
			}
			return
		}
		cfg, err := overlay.ParseConfig(s.Config)
		if err != nil || backends[cfg.Backend.Type] == nil || !cfg.EnableIPv4 {
			t.Errorf("%s=%q: config %s, %v", name, value, s.Config, err)
		}
		if s.PublicIP.IsValid() && !s.PublicIP.Is4() || s.LeaseTTL < minLeaseTTL || s.MTU != 0 && s.MTU < minMTU || s.Prefix == "" {
			t.Errorf("%s=%q: %+v", name, value, s)
		}
	})
}
