package overlay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// short prints a config in one line: its ranges and its backend.
func short(c Config) string {
	var parts []string
	if c.EnableIPv4 {
		parts = append(parts, fmt.Sprintf("%s /%d %s-%s", c.Network, c.SubnetLen, c.SubnetMin, c.SubnetMax))
	}
	if c.EnableIPv6 {
		parts = append(parts, fmt.Sprintf("%s /%d %s-%s", c.IPv6Network, c.IPv6SubnetLen, c.IPv6SubnetMin, c.IPv6SubnetMax))
	}
	return strings.Join(append(parts, c.Backend.Type+string(c.Backend.Raw)), " | ")
}

func TestParseConfig(t *testing.T) {
	for text, want := range map[string]string{
		`{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`:          `10.5.0.0/16 /24 10.5.1.0-10.5.255.0 | vxlan{"Type":"vxlan"}`,
		`{ "Network": "10.2.0.0/16", "SubnetLen": 24, "Backend": { "Type": "vxlan" }}`: `10.2.0.0/16 /24 10.2.1.0-10.2.255.0 | vxlan{ "Type": "vxlan" }`,
		`{"Network":"4.0.0.0/16"}`:                                                                `4.0.0.0/16 /24 4.0.1.0-4.0.255.0 | udp`,
		`{"NETWORK":"10.5.0.0/16","subnetlen":25}`:                                                `10.5.0.0/16 /25 10.5.0.128-10.5.255.128 | udp`,
		`{"Network":"10.5.6.7/16"}`:                                                               `10.5.0.0/16 /24 10.5.1.0-10.5.255.0 | udp`,
		`{"Network":"10.5.0.0/22"}`:                                                               `10.5.0.0/22 /24 10.5.1.0-10.5.3.0 | udp`,
		`{"Network":"10.5.0.0/23"}`:                                                               `10.5.0.0/23 /25 10.5.0.128-10.5.1.128 | udp`,
		`{"Network":"10.5.0.0/28"}`:                                                               `10.5.0.0/28 /30 10.5.0.4-10.5.0.12 | udp`,
		`{"Network":"10.0.0.0/8","SubnetLen":30}`:                                                 `10.0.0.0/8 /30 10.0.0.4-10.255.255.252 | udp`,
		`{"Network":"10.5.0.0/16","SubnetLen":0,"X":[1]}`:                                         `10.5.0.0/16 /24 10.5.1.0-10.5.255.0 | udp`,
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0"}`:                                        `10.5.0.0/16 /24 10.5.0.0-10.5.255.0 | udp`,
		`{"Network":"10.5.0.0/16","SubnetMin":"0.0.0.0"}`:                                         `10.5.0.0/16 /24 10.5.1.0-10.5.255.0 | udp`,
		`{"Network":"10.5.0.0/16","Backend":{"type":"UDP"}}`:                                      `10.5.0.0/16 /24 10.5.1.0-10.5.255.0 | udp{"type":"UDP"}`,
		`{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0"}`: `10.0.0.0/8 /20 10.10.0.0-10.99.0.0 | udp`,
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.9.0"}`:                 `10.5.0.0/16 /24 10.5.9.0-10.5.9.0 | udp`,
		`{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48"}`:                 `10.5.0.0/16 /24 10.5.1.0-10.5.255.0 | fd00:5::/48 /64 fd00:5:0:1::-fd00:5:0:ffff:: | udp`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/63"}`:                        `fd00::/63 /65 fd00::8000:0:0:0-fd00:0:0:1:8000:: | udp`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/124"}`:                       `fd00::/124 /126 fd00::4-fd00::c | udp`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/62"}`:                        `fd00::/62 /64 fd00:0:0:1::-fd00:0:0:3:: | udp`,
		`{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fd00::/56","IPv6SubnetLen":60,"IPv6SubnetMin":"fd00:0:0:20::","IPv6SubnetMax":"fd00:0:0:40::"}`: `10.5.0.0/16 /24 10.5.1.0-10.5.255.0 | fd00::/56 /60 fd00:0:0:20::-fd00:0:0:40:: | udp`,
	} {
		c, err := ParseConfig([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := short(c); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                          "config is not JSON: unexpected end of JSON input",
		`[]`:                        "config is a JSON array: an object is accepted",
		`{}`:                        "Network is missing: an IPv4 network such as 10.5.0.0/16 is accepted",
		`null`:                      "Network is missing: an IPv4 network such as 10.5.0.0/16 is accepted",
		`{"Network":5}`:             "Network is a JSON number: a string is accepted",
		`{"Network":"10.5.0.0"}`:    `Network "10.5.0.0": an IPv4 network such as 10.5.0.0/16 is accepted`,
		`{"Network":"0.0.0.0/0"}`:   `Network "0.0.0.0/0": an IPv4 network such as 10.5.0.0/16 is accepted`,
		`{"Network":"fd00::/48"}`:   `Network "fd00::/48": an IPv4 network such as 10.5.0.0/16 is accepted`,
		`{"Network":"10.5.0.0/29"}`: `Network "10.5.0.0/29" is too small: /28 or larger is accepted`,
		`{"Network":"10.5.0.0/16","SubnetLen":31}`:                                                  "SubnetLen 31: 18 to 30 is accepted for Network 10.5.0.0/16, which must hold four subnets",
		`{"Network":"10.5.0.0/16","SubnetLen":17}`:                                                  "SubnetLen 17: 18 to 30 is accepted for Network 10.5.0.0/16, which must hold four subnets",
		`{"Network":"10.5.0.0/16","SubnetLen":-1}`:                                                  "SubnetLen -1: 18 to 30 is accepted for Network 10.5.0.0/16, which must hold four subnets",
		`{"Network":"10.5.0.0/16","SubnetLen":"24"}`:                                                "SubnetLen is a JSON string: a whole number is accepted",
		`{"Network":"10.5.0.0/16","subnetlen":24.5}`:                                                "SubnetLen is a JSON number 24.5: a whole number is accepted",
		`{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}`:                                          "SubnetMin 10.6.0.0: an address of 10.5.0.0/16 is accepted",
		`{"Network":"10.5.0.0/16","SubnetMin":"x"}`:                                                 `SubnetMin "x": an IPv4 address of 10.5.0.0/16 is accepted`,
		`{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.128"}`:                                        "SubnetMax 10.5.9.128: an address on a /24 boundary such as 10.5.9.0 is accepted",
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}`:                   "SubnetMax 10.5.8.0 is below SubnetMin 10.5.9.0: the same or a higher address is accepted",
		`{"Network":"10.5.0.0/16","Backend":"vxlan"}`:                                               `Backend "vxlan": an object that names its Type is accepted, as in {"Type":"vxlan"}`,
		`{"Network":"10.5.0.0/16","Backend":{"Port":1}}`:                                            `Backend {"Port":1}: an object that names its Type is accepted, as in {"Type":"vxlan"}`,
		`{"Network":"10.5.0.0/16","Backend":null}`:                                                  `Backend null: an object that names its Type is accepted, as in {"Type":"vxlan"}`,
		`{"EnableIPv4":false}`:                                                                      "EnableIPv4 and EnableIPv6 are both false: at least one must be true",
		`{"EnableIPv4":1}`:                                                                          "EnableIPv4 is a JSON number: true or false is accepted",
		`{"EnableIPv6":true,"Network":"10.5.0.0/16"}`:                                               "IPv6Network is missing: an IPv6 network such as fd00:5::/48 is accepted",
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"10.5.0.0/16"}`:                        `IPv6Network "10.5.0.0/16": an IPv6 network such as fd00:5::/48 is accepted`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::ffff:10.5.0.0/112"}`:                `IPv6Network "::ffff:10.5.0.0/112": an IPv6 network such as fd00:5::/48 is accepted`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/125"}`:                         `IPv6Network "fd00::/125" is too small: /124 or larger is accepted`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/64","IPv6SubnetLen":127}`:      "IPv6SubnetLen 127: 66 to 126 is accepted for IPv6Network fd00::/64, which must hold four subnets",
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetMin":"fd01::"}`: "IPv6SubnetMin fd01::: an address of fd00::/48 is accepted",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestNewConfig(t *testing.T) {
	network := netip.MustParsePrefix
	for _, c := range []struct {
		network netip.Prefix
		bits    int
		backend string
		want    string // the JSON, or the error
	}{
		{network("10.5.0.0/16"), 24, `{"Type":"vxlan"}`, `{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`},
		{network("10.5.6.7/16"), 0, `{ "Type": "host-gw" }`, `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`},
		{network("10.5.0.0/16"), 0, ``, `{"Network":"10.5.0.0/16"}`},
		{network("10.5.0.0/16"), 31, ``, "SubnetLen 31: 18 to 30 is accepted for Network 10.5.0.0/16, which must hold four subnets"},
		{network("fd00::/48"), 0, ``, `Network "fd00::/48": an IPv4 network such as 10.5.0.0/16 is accepted`},
		{netip.Prefix{}, 0, ``, `Network is missing: an IPv4 network such as 10.5.0.0/16 is accepted`},
		{network("10.5.0.0/16"), 0, `{"Type":`, "Backend {\"Type\":: json: error calling MarshalJSON for type json.RawMessage: unexpected end of JSON input"},
	} {
		text, err := NewConfig(c.network, c.bits, json.RawMessage(c.backend))
		if got := string(text); err == nil && got != c.want || err != nil && err.Error() != c.want {
			t.Errorf("%s /%d %s:\n got %s %v\nwant %s", c.network, c.bits, c.backend, got, err, c.want)
		}
	}
}

func mustParse(t testing.TB, text string) Config {
	t.Helper()
	c, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFits(t *testing.T) {
	c := mustParse(t, `{"Network":"10.5.0.0/16","SubnetMax":"10.5.99.0","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`)
	for text, want := range map[string]string{
		"10.5.1.0/24":         "",
		"10.5.99.0/24":        "",
		"fd00:5:0:1::/64":     "",
		"fd00:5:0:ffff::/64":  "",
		"10.5.0.0/24":         "subnet 10.5.0.0/24 is outside of SubnetMin 10.5.1.0 to SubnetMax 10.5.99.0",
		"10.5.100.0/24":       "subnet 10.5.100.0/24 is outside of SubnetMin 10.5.1.0 to SubnetMax 10.5.99.0",
		"10.5.1.1/24":         "subnet 10.5.1.1/24 is not on a /24 boundary",
		"10.5.1.0/25":         "subnet 10.5.1.0/25: SubnetLen is 24",
		"fd00:5::/64":         "subnet fd00:5::/64 is outside of IPv6SubnetMin fd00:5:0:1:: to IPv6SubnetMax fd00:5:0:ffff::",
		"fd00:5:0:1::/65":     "subnet fd00:5:0:1::/65: IPv6SubnetLen is 64",
		"::ffff:10.5.1.0/120": "::ffff:10.5.1.0/120 is not a subnet",
	} {
		err := c.Fits(netip.MustParsePrefix(text))
		if got := fmt.Sprint(err); got != want && (err != nil || want != "") {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
	if c.Fits(netip.Prefix{}) == nil || (Config{}).Fits(netip.MustParsePrefix("10.5.1.0/24")) == nil {
		t.Error("no subnet, or no config, fits")
	}
	c = mustParse(t, `{"Network":"10.5.0.0/16"}`)
	if err := c.Fits(netip.MustParsePrefix("fd00::/64")); err == nil || !strings.Contains(err.Error(), "does not use IPv6") {
		t.Errorf("without IPv6: %v", err)
	}
}

func TestSubnets(t *testing.T) {
	c := mustParse(t, `{"Network":"10.5.0.0/22"}`)
	var got []string
	for p := range c.Subnets() {
		got = append(got, p.String())
	}
	if want := []string{"10.5.1.0/24", "10.5.2.0/24", "10.5.3.0/24"}; !slices.Equal(got, want) || c.Count() != 3 {
		t.Errorf("%d subnets: %v", c.Count(), got)
	}
	c = mustParse(t, `{"Network":"10.0.0.0/8","SubnetLen":30}`)
	if c.Count() != 1<<22-1 {
		t.Errorf("%d subnets", c.Count())
	}
	n := 0
	for p := range c.Subnets() {
		if n++; n == 3 {
			if p.String() != "10.0.0.12/30" {
				t.Errorf("third is %s", p)
			}
			break
		}
	}
	if last := c.Subnet(c.Count() - 1).String(); last != "10.255.255.252/30" {
		t.Errorf("last is %s", last)
	}
	c = mustParse(t, `{"Network":"128.0.0.0/1","SubnetLen":30}`)
	if last := c.Subnet(c.Count() - 1); c.Fits(last) != nil || last.String() != "255.255.255.252/30" {
		t.Errorf("last is %s", last)
	}
	c = mustParse(t, `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}`)
	for p := range c.Subnets() {
		t.Errorf("subnet %s without IPv4", p)
	}
}

// A config that is kept in JSON comes back as it was.
func TestConfigJSON(t *testing.T) {
	for _, text := range []string{
		`{"Network":"10.5.0.0/16"}`,
		`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan","VNI":7}}`,
	} {
		c := mustParse(t, text)
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var again Config
		if err := json.Unmarshal(b, &again); err != nil || !again.Equal(c) {
			t.Errorf("%s came back as %+v, %v", b, again, err)
		}
		if again.SubnetLen++; again.Equal(c) {
			t.Error("configs of different subnet lengths are equal")
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"Network":"10.5.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}`))
	f.Add([]byte(`{ "Network": "10.2.0.0/16", "SubnetLen": 24, "Backend": { "Type": "vxlan" }}`))
	f.Add([]byte(`{"Network":"4.0.0.0/16"}`))
	f.Add([]byte(`{"network":"10.0.0.0/8","subnetlen":20,"subnetmin":"10.10.0.0","subnetmax":"10.99.0.0","backend":{"Type":"udp","Port":7890}}`))
	f.Add([]byte(`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/56","IPv6SubnetLen":60,"IPv6SubnetMin":"fd00:0:0:20::"}`))
	f.Add([]byte(`{"Network":"10.5.0.0/29"}`))
	f.Add([]byte(`{"Network":"0.0.0.0/1","SubnetMin":"0.0.0.0","SubnetLen":3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConfig(text)
		if err != nil {
			return
		}
		if c.Backend.Type == "" {
			t.Error("no backend")
		}
		if c.EnableIPv4 {
			n := c.Count()
			if n < 1 || n > 1<<29 {
				t.Fatalf("%d subnets", n)
			}
			first, last := c.Subnet(0), c.Subnet(n-1)
			if first.Addr() != c.SubnetMin || last.Addr() != c.SubnetMax {
				t.Errorf("subnets %s to %s, want %s to %s", first, last, c.SubnetMin, c.SubnetMax)
			}
			for _, p := range []netip.Prefix{first, last} {
				if err := c.Fits(p); err != nil || !c.Network.Overlaps(p) {
					t.Errorf("%s in %s: %v", p, c.Network, err)
				}
			}
		}
		if c.EnableIPv6 {
			for _, ip := range []netip.Addr{c.IPv6SubnetMin, c.IPv6SubnetMax} {
				if err := c.Fits(netip.PrefixFrom(ip, c.IPv6SubnetLen)); err != nil || !c.IPv6Network.Contains(ip) {
					t.Errorf("%s in %s: %v", ip, c.IPv6Network, err)
				}
			}
		}
	})
}
