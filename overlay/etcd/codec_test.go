package etcd

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
)

func TestKeys(t *testing.T) {
	for _, c := range []struct{ prefix, network, config, lease string }{
		{"/coreos.com/network", "", "/coreos.com/network/config", "/coreos.com/network/subnets/10.5.34.0-24"},
		{"/coreos.com/network/", "", "/coreos.com/network/config", "/coreos.com/network/subnets/10.5.34.0-24"},
		{"/docker-test/network", "blue", "/docker-test/network/blue/config", "/docker-test/network/blue/subnets/10.5.34.0-24"},
		{"plain", "", "plain/config", "plain/subnets/10.5.34.0-24"},
		{"/", "blue", "/blue/config", "/blue/subnets/10.5.34.0-24"},
		{"/", "", "/config", "/subnets/10.5.34.0-24"},
		{"", "", "config", "subnets/10.5.34.0-24"},
	} {
		k, err := newKeys(c.prefix, c.network)
		if err != nil {
			t.Fatal(err)
		}
		lease := k.lease(subnet("10.5.34.0/24"), netip.Prefix{})
		if k.config() != c.config || lease != c.lease {
			t.Errorf("%q, network %q: %s and %s", c.prefix, c.network, k.config(), lease)
		}
		if got, v6, err := k.parseLease(lease); err != nil || got != subnet("10.5.34.0/24") || v6.IsValid() {
			t.Errorf("%s read as %s, %s, %v", lease, got, v6, err)
		}
	}
	for _, name := range []string{"config", "subnets", "subnets2", "subnets-x", "a/b", "/", ".", "..", "-a", "a b", "é", strings.Repeat("x", 65)} {
		if _, err := newKeys("/p", name); err == nil {
			t.Errorf("network %q is accepted", name)
		}
	}
}

func TestSubnetCodec(t *testing.T) {
	for text, want := range map[string][2]netip.Prefix{
		"10.9.9.0-24":                     {subnet("10.9.9.0/24"), {}},
		"10.9.9.0-24&fd00:5:0:4b::-64":    {subnet("10.9.9.0/24"), subnet("fd00:5:0:4b::/64")},
		"10.9.9.4-30&fd00::4-126":         {subnet("10.9.9.4/30"), subnet("fd00::4/126")},
		"10.9.9.1-24":                     {subnet("10.9.9.1/24"), {}}, // Fits refuses it
		"10.9.9.0":                        {},
		"10.9.9.0-":                       {},
		"10.9.9.0-33":                     {},
		"10.9.9.0-024":                    {},
		"10.9.9.0-+24":                    {},
		"010.9.9.0-24":                    {},
		"10.9.9.0-24&":                    {},
		"10.9.9.0-24&10.9.8.0-24":         {},
		"10.9.9.0-24&FD00::-64":           {},
		"10.9.9.0-24&fd00:0::-64":         {},
		"10.9.9.0-24&fd00::-129":          {},
		"10.9.9.0-24&::ffff:10.9.8.0-120": {},
		"10.9.9.0-24&fd00::%eth0-64":      {},
		"10.9.9.0-24&fd00::-64&fd01::-64": {},
		"fd00::-64":                       {},
		"fd00::-64&fd00::-64":             {},
		"foo/10.9.9.0-24":                 {},
		"10.9.9.0/24":                     {},
		"10.9.9.0-24/":                    {},
		"":                                {},
	} {
		v4, v6, err := parseSubnet(text)
		if (err == nil) != want[0].IsValid() || v4 != want[0] || v6 != want[1] {
			t.Errorf("%q: %s, %s, %v", text, v4, v6, err)
		}
		if err == nil && formatSubnet(v4, v6) != text {
			t.Errorf("%q is written as %q", text, formatSubnet(v4, v6))
		}
	}
}

// The values are, byte for byte, what flanneld writes.
func TestLeaseCodec(t *testing.T) {
	ip := netip.MustParseAddr
	for _, c := range []struct {
		lease overlay.Lease
		value string
	}{
		{
			overlay.Lease{PublicIP: ip("10.8.65.66"), BackendType: "vxlan", BackendData: json.RawMessage(`{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"}`)},
			`{"PublicIP":"10.8.65.66","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"}}`,
		},
		{
			overlay.Lease{
				PublicIP: ip("10.8.65.66"), PublicIPv6: ip("fd00::42"), BackendType: "vxlan",
				BackendData:   json.RawMessage(`{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"}`),
				BackendV6Data: json.RawMessage(`{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:78"}`),
			},
			`{"PublicIP":"10.8.65.66","PublicIPv6":"fd00::42","BackendType":"vxlan",` +
				`"BackendData":{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"},"BackendV6Data":{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:78"}}`,
		},
		{
			overlay.Lease{PublicIP: ip("10.8.65.66"), BackendType: "host-gw"},
			`{"PublicIP":"10.8.65.66","PublicIPv6":null,"BackendType":"host-gw"}`,
		},
		{
			overlay.Lease{PublicIP: ip("10.8.65.66"), BackendType: "wireguard", BackendData: json.RawMessage(`{"PublicKey":"a+b/c=","Port":51820}`)},
			`{"PublicIP":"10.8.65.66","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"a+b/c=","Port":51820}}`,
		},
		{
			overlay.Lease{PublicIP: ip("10.8.65.53")}, // udp
			`{"PublicIP":"10.8.65.53","PublicIPv6":null}`,
		},
	} {
		value, err := encodeLease(c.lease)
		if err != nil || string(value) != c.value {
			t.Errorf("wrote %s, %v\n want %s", value, err, c.value)
		}
		if got, err := decodeLease([]byte(c.value)); err != nil || !reflect.DeepEqual(got, c.lease) {
			t.Errorf("%s read as %+v, %v", c.value, got, err)
		}
	}
	for _, l := range []overlay.Lease{{}, {PublicIP: ip("fd00::1")}, {PublicIP: ip("10.0.0.1"), BackendData: json.RawMessage("{")}} {
		if value, err := encodeLease(l); err == nil {
			t.Errorf("%+v is written as %s", l, value)
		}
	}
}

func TestDecodeLease(t *testing.T) {
	spaced := ` {"publicip": "10.8.65.53", "Rack": {"no": 5}} `
	for value, want := range map[string]string{ // as it is written, or the error
		`{"PublicIP":"10.8.65.53"}`: `{"PublicIP":"10.8.65.53","PublicIPv6":null}`,
		spaced:                      `{"PublicIP":"10.8.65.53","PublicIPv6":null}`,
		`{"PublicIP":"10.8.65.53","BackendData":null}`: `{"PublicIP":"10.8.65.53","PublicIPv6":null}`,
		`{"PublicIP":"10.8.65.53","BackendData":"x"}`:  `{"PublicIP":"10.8.65.53","PublicIPv6":null,"BackendData":"x"}`,
		`{}`:                     `PublicIP is missing`,
		`null`:                   `PublicIP is missing`,
		`{"PublicIP":"host"}`:    `PublicIP "host" is not a host's IPv4 address`,
		`{"PublicIP":"fd00::1"}`: `PublicIP "fd00::1" is not a host's IPv4 address`,
		`{"PublicIP":"0.0.0.0"}`: `PublicIP "0.0.0.0" is not a host's IPv4 address`,
		`{"PublicIP":"10.0.0.1","PublicIPv6":"x"}`: `PublicIPv6 "x" is not an IPv6 address`,
		`{"PublicIP":"10.0.0.1"`:                   `not a lease's JSON: unexpected end of JSON input`,
		``:                                         `not a lease's JSON: unexpected end of JSON input`,
	} {
		l, err := decodeLease([]byte(value))
		got := ""
		if err != nil {
			got = err.Error()
		} else if b, err := encodeLease(l); err == nil {
			got = string(b)
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", value, got, want)
		}
	}
}

func FuzzParseSubnet(f *testing.F) {
	f.Add("10.5.34.0-24")
	f.Add("10.2.46.0-24")
	f.Add("10.9.9.0-24&fd00:5:0:4b::-64")
	f.Add("10.9.9.0-024")
	f.Add("10.9.9.0-24&::ffff:10.9.8.0-120")
	f.Fuzz(func(t *testing.T, text string) {
		v4, v6, err := parseSubnet(text)
		if err != nil {
			return
		}
		if !v4.IsValid() || !v4.Addr().Is4() || v6.IsValid() && !v6.Addr().Is6() {
			t.Errorf("%q read as %s, %s", text, v4, v6)
		}
		if again := formatSubnet(v4, v6); again != text {
			t.Errorf("%q is written as %q", text, again)
		}
	})
}

func FuzzDecodeLease(f *testing.F) {
	f.Add([]byte(`{"PublicIP":"10.8.65.53"}`))
	f.Add([]byte(`{"PublicIP":"10.8.65.66","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"f2:79:d1:59:ac:77"}}`))
	f.Add([]byte(`{"PublicIP":"10.8.65.66","PublicIPv6":"fd00::42","BackendType":"vxlan","BackendV6Data":{"VNI":1}}`))
	f.Add([]byte(`{"PublicIP":"10.8.65.66","BackendData":null,"BackendV6Data":"<&>"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		l, err := decodeLease(value)
		if err != nil {
			return
		}
		first, err := encodeLease(l)
		if err != nil {
			t.Fatalf("%s cannot be written: %v", value, err)
		}
		again, err := decodeLease(first)
		if err != nil {
			t.Fatalf("%s cannot be read: %v", first, err)
		}
		if second, err := encodeLease(again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s is written again as %s, %v", first, second, err)
		}
	})
}
