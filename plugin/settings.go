package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// Settings are what docker plugin set gives the plugin, validated.
type Settings struct {
	Endpoints []string // of an etcd of one's own; empty for the embedded one
	Listen    string   // client URL of the embedded etcd
	Prefix    string   // of every key, without a trailing slash
	CAFile    string
	CertFile  string
	KeyFile   string
	Username  string
	Password  hidden
	// PasswordFile is read each time that the plugin signs in.
	PasswordFile string
	Config       []byte // flannel config to create where etcd has none
	Pool         overlay.Pool
	Iface        string
	PublicIP     netip.Addr
	PublicIPv6   netip.Addr
	MTU          int // bytes; 0 for the largest possible
	LeaseTTL     time.Duration
	Sync         bool // Docker networks made on one host appear on all
	LogLevel     slog.Level
	Metrics      string // host:port of /metrics; empty for none
	configText   [4]string
}

// Setting is one setting's name, default and meaning; config.json and the
// README list the same.
type Setting struct {
	Name, Default, Meaning string
	read                   func(s *Settings, value string) error
}

// smallest and largest MTU of a setting, in bytes: RFC 791's reassembly
// buffer, and the largest IPv4 packet.
const (
	minMTU = 576
	maxMTU = 65535
)

// AllSettings lists the settings in the order people read them.
var AllSettings = []Setting{
	{"ETCD_ENDPOINTS", "", "client URLs of an etcd cluster, separated by commas; empty runs an embedded etcd", readEndpoints},
	{"ETCD_LISTEN", "http://127.0.0.1:2379", "client URL that the embedded etcd listens on; give this host's address to serve the other hosts, https for TLS with certificates on both sides", readListen},
	{"ETCD_PREFIX", "/coreos.com/network", "prefix of every key", readPrefix},
	{"ETCD_CAFILE", "", "file with the CA certificates that etcd's is checked against, and by the embedded etcd the other hosts', as the plugin sees it (/certs/...)", text(func(s *Settings) *string { return &s.CAFile })},
	{"ETCD_CERTFILE", "", "file with this host's certificate: the client's, and with ETCD_LISTEN=https the embedded etcd's", text(func(s *Settings) *string { return &s.CertFile })},
	{"ETCD_KEYFILE", "", "file with that certificate's key", text(func(s *Settings) *string { return &s.KeyFile })},
	{"ETCD_USERNAME", "", "etcd user", text(func(s *Settings) *string { return &s.Username })},
	{"ETCD_PASSWORD", "", "etcd user's password; docker plugin inspect shows it, ETCD_PASSWORD_FILE keeps it to itself", readPassword},
	{"ETCD_PASSWORD_FILE", "", "file with the etcd user's password and nothing else, as the plugin sees it (/certs/...)", text(func(s *Settings) *string { return &s.PasswordFile })},
	{"NETWORK", "10.5.0.0/16", "cluster network to create where etcd holds no config", configPart(0)},
	{"SUBNET_LEN", "24", "length of the hosts' subnets in that network", configPart(1)},
	{"IPV6_NETWORK", "", "IPv6 half of that cluster network, such as fd00:5::/48, of which every host has a /64; empty for IPv4 alone", configPart(3)},
	{"NETWORK_POOL", "base=10.128.0.0/9,size=16", "where networks with a name of their own (--ipam-opt network=NAME) take their CIDR, unless --subnet gives one; with ,ipv6-base=fd00:80::/40,ipv6-size=56 an IPv6 one too", readPool},
	{"BACKEND", "vxlan", "backend of new networks: vxlan, host-gw, udp, or flannel's Backend object as JSON", configPart(2)},
	{"IFACE", "", "interface that carries traffic between hosts: a name, or a regular expression for names or addresses; empty for the default route's", readIface},
	{"PUBLIC_IP", "", "address at which the other hosts reach this one; empty for the interface's", readPublicIP},
	{"PUBLIC_IPV6", "", "IPv6 address at which the other hosts reach this one, for networks with IPv6; empty for the interface's", readPublicIPv6},
	{"MTU", "0", "MTU of containers' interfaces in bytes; 0 for the largest that fits the interface", readMTU},
	{"LEASE_TTL", "24h", "how long the host's subnet stays its own without renewal, as 24h or 10m; flannel's is 24h", readLeaseTTL},
	{"SYNC_NETWORKS", "false", "true makes a flannel network that is created on one host a Docker network of the same name and options on every host with true", readSync},
	{"LOG_LEVEL", "info", "debug, info, warn or error", readLogLevel},
	{"METRICS_LISTEN", "", "address and port that serve the status page, /metrics, /healthz and /readyz, as 127.0.0.1:9470; empty for none", readMetrics},
}

// ReadSettings reads the settings from an environment; an empty one has its
// default. Every wrong one is reported, with its name, its value and what is accepted.
func ReadSettings(lookup func(string) (string, bool)) (Settings, error) {
	var s Settings
	var errs []error
	for _, setting := range AllSettings {
		value, _ := lookup(setting.Name)
		if value = strings.TrimSpace(value); value == "" {
			value = setting.Default
		}
		if err := setting.read(&s, value); err != nil {
			errs = append(errs, fmt.Errorf("setting %s=%s: %w", setting.Name, withoutUser(value), err))
		}
	}
	errs = append(errs, s.together()...)
	return s, errors.Join(errs...)
}

// together checks the settings that depend on each other, and makes Config.
func (s *Settings) together() []error {
	errs := s.safe()
	config, err := s.config()
	if err != nil {
		return append(errs, err)
	}
	s.Config = config
	return errs
}

// config is the flannel config that NETWORK, SUBNET_LEN and BACKEND describe.
func (s *Settings) config() ([]byte, error) {
	network, err := netip.ParsePrefix(s.configText[0])
	if err != nil || !network.Addr().Is4() {
		return nil, fmt.Errorf("setting NETWORK=%s: give an IPv4 network such as 10.5.0.0/16", s.configText[0])
	}
	length, err := strconv.Atoi(s.configText[1])
	if err != nil {
		return nil, fmt.Errorf("setting SUBNET_LEN=%s: give a number of bits such as 24", s.configText[1])
	}
	backend := json.RawMessage(s.configText[2])
	if !strings.HasPrefix(s.configText[2], "{") {
		if backend, err = json.Marshal(map[string]string{"Type": s.configText[2]}); err != nil {
			return nil, fmt.Errorf("setting BACKEND=%s: %w", s.configText[2], err)
		}
	}
	config, err := overlay.NewConfig(network, length, backend)
	if err != nil {
		return nil, fmt.Errorf("settings NETWORK=%s SUBNET_LEN=%s BACKEND=%s: %w", s.configText[0], s.configText[1], s.configText[2], err)
	}
	if text := s.configText[3]; text != "" {
		six, err := netip.ParsePrefix(text)
		if err != nil || !six.Addr().Is6() || six.Addr().Is4In6() {
			return nil, fmt.Errorf("setting IPV6_NETWORK=%s: give an IPv6 network such as fd00:5::/48, or nothing for IPv4 alone", text)
		}
		if config, err = overlay.DualStack(config, six); err != nil {
			return nil, fmt.Errorf("setting IPV6_NETWORK=%s: %w", text, err)
		}
	}
	parsed, err := overlay.ParseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("settings NETWORK, SUBNET_LEN and BACKEND: %w", err)
	}
	if _, known := backends[parsed.Backend.Type]; !known {
		return nil, fmt.Errorf("setting BACKEND=%s: supported backends: %s", s.configText[2], strings.Join(backendNames(), ", "))
	}
	return config, nil
}

func text(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		*field(s) = value
		return nil
	}
}

func configPart(i int) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		s.configText[i] = value
		return nil
	}
}

func readEndpoints(s *Settings, value string) error {
	for endpoint := range strings.SplitSeq(value, ",") {
		endpoint = strings.TrimSpace(endpoint)
		if endpoint == "" {
			continue
		}
		if err := checkURL(endpoint); err != nil {
			return err
		}
		s.Endpoints = append(s.Endpoints, endpoint)
	}
	return nil
}

func readListen(s *Settings, value string) error {
	if err := checkURL(value); err != nil {
		return err
	}
	u, err := url.Parse(value)
	if err != nil {
		return err
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		return errors.New("give http:// or https://, an address of this host and a port, such as http://10.0.0.1:2379")
	}
	s.Listen = value
	return nil
}

// checkURL accepts http and https URLs of a host and a port.
func checkURL(value string) error {
	u, err := url.Parse(value)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Path == "" && u.RawQuery == "" && u.User == nil {
		if host, port, err := net.SplitHostPort(u.Host); err == nil && host != "" {
			if n, err := strconv.Atoi(port); err == nil && n > 0 && n <= 65535 {
				return nil
			}
		}
	}
	return errors.New("give http:// or https://, a host and a port, such as http://10.0.0.1:2379")
}

func readPrefix(s *Settings, value string) error {
	value = strings.TrimRight(value, "/")
	if !strings.HasPrefix(value, "/") {
		return errors.New("give a path such as /coreos.com/network")
	}
	s.Prefix = value
	return nil
}

func readIface(s *Settings, value string) error {
	if _, err := regexp.Compile(value); err != nil {
		return fmt.Errorf("give an interface's name or a regular expression: %w", err)
	}
	s.Iface = value
	return nil
}

func readPublicIP(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	ip, err := netip.ParseAddr(value)
	if err != nil || !ip.Is4() || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() {
		return errors.New("give an IPv4 address of this host, such as 10.0.0.1")
	}
	s.PublicIP = ip
	return nil
}

func readPublicIPv6(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	ip, err := netip.ParseAddr(value)
	if err != nil || !ip.Is6() || ip.Is4In6() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
		return errors.New("give an IPv6 address of this host that is not link-local, such as fd00:c0::1")
	}
	s.PublicIPv6 = ip
	return nil
}

func readMTU(s *Settings, value string) error {
	if value == "0" {
		return nil
	}
	mtu, err := strconv.Atoi(value)
	if err != nil || mtu < minMTU || mtu > maxMTU {
		return fmt.Errorf("give a number of bytes from %d to %d, or 0", minMTU, maxMTU)
	}
	s.MTU = mtu
	return nil
}

// minLeaseTTL is three renewals, each with time for etcd to answer.
const minLeaseTTL = 10 * time.Second

func readLeaseTTL(s *Settings, value string) error {
	ttl, err := time.ParseDuration(value)
	if err != nil || ttl < minLeaseTTL || ttl%time.Second != 0 {
		return fmt.Errorf("give whole seconds, minutes or hours of at least %s, such as 24h", minLeaseTTL)
	}
	s.LeaseTTL = ttl
	return nil
}

func readMetrics(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(value)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 1 || n > 65535 {
		return errors.New("give an address of this host and a port, such as 127.0.0.1:9470 or :9470")
	}
	s.Metrics = value
	return nil
}

func readSync(s *Settings, value string) error {
	if value != "true" && value != "false" {
		return errors.New("give true or false")
	}
	s.Sync = value == "true"
	return nil
}

func readLogLevel(s *Settings, value string) error {
	levels := []string{"debug", "info", "warn", "error"}
	if !slices.Contains(levels, value) {
		return fmt.Errorf("give one of %s", strings.Join(levels, ", "))
	}
	return s.LogLevel.UnmarshalText([]byte(value))
}
