package driver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Keys of the options that the engine sends with a network.
const (
	genericKey    = "com.docker.network.generic" // everything given with -o
	enableIPv4Key = "com.docker.network.enable_ipv4"
	enableIPv6Key = "com.docker.network.enable_ipv6"
	internalKey   = "com.docker.network.internal" // --internal
)

// Options that a user gives with -o.
const (
	mtuKey     = "com.docker.network.driver.mtu"
	gatewayKey = "gateway"
	masqKey    = "ip-masq"
)

// minMTU is the smallest MTU IPv4 is asked to work with, RFC 791.
const minMTU = 68

// options are a network's options as typed values.
type options struct {
	mtu      int  // bytes; 0 for the network's own
	gateway  bool // the bridge is the containers' way out, not docker_gwbridge
	keepAddr bool // what goes out by the bridge keeps the containers' addresses
	internal bool // no way out
	ipv6     bool
}

// userOption is one that is given with -o.
type userOption struct {
	accepts string
	parse   func(value string, into *options) error
}

// userOptions are the accepted -o options by their names.
func userOptions() map[string]userOption {
	return map[string]userOption{
		mtuKey: {"BYTES", func(value string, into *options) error {
			mtu, err := strconv.Atoi(value)
			if err != nil || mtu < minMTU {
				return fmt.Errorf("give a number of bytes of at least %d", minMTU)
			}
			into.mtu = mtu
			return nil
		}},
		gatewayKey: {"docker|flannel", func(value string, into *options) error {
			if value != "docker" && value != "flannel" {
				return errors.New("give docker, for the engine's docker_gwbridge, or flannel, for the network's own bridge")
			}
			into.gateway = value == "flannel"
			return nil
		}},
		masqKey: {"true|false", func(value string, into *options) error {
			if value != "true" && value != "false" {
				return errors.New("give true or false")
			}
			into.keepAddr = value == "false"
			return nil
		}},
	}
}

// accepted lists the -o options for people.
func accepted() string {
	all := userOptions()
	var names []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		names = append(names, key+"="+all[key].accepts)
	}
	return strings.Join(names, ", ")
}

// parseOptions reads what the engine sent. An error names the option, its
// value and what is accepted.
func parseOptions(raw map[string]any) (options, error) {
	var opt options
	for _, key := range []string{enableIPv4Key, enableIPv6Key, internalKey} {
		if _, isBool := raw[key].(bool); !isBool && raw[key] != nil {
			return opt, fmt.Errorf("option %s=%v is neither true nor false; give one of them or leave it out", key, raw[key])
		}
	}
	if raw[enableIPv4Key] == false {
		return opt, fmt.Errorf("--ipv4=false: a flannel network needs IPv4; leave it out")
	}
	opt.ipv6 = raw[enableIPv6Key] == true
	opt.internal = raw[internalKey] == true
	given, isMap := raw[genericKey].(map[string]any)
	if !isMap && raw[genericKey] != nil {
		return opt, fmt.Errorf("option %s=%v is not an object of texts; give options with -o NAME=VALUE", genericKey, raw[genericKey])
	}
	err := parseGiven(given, &opt)
	return opt, err
}

// parseGiven reads the -o options.
func parseGiven(given map[string]any, into *options) error {
	known := userOptions()
	for _, key := range slices.Sorted(maps.Keys(given)) {
		value, isText := given[key].(string)
		option, isKnown := known[key]
		switch {
		case !isText:
			return fmt.Errorf("-o %s=%v is not a text; the flannel driver accepts %s", key, given[key], accepted())
		case !isKnown:
			return fmt.Errorf("-o %s=%s: unknown option; the flannel driver accepts %s; leave it out", key, value, accepted())
		}
		if err := option.parse(value, into); err != nil {
			return fmt.Errorf("-o %s=%s: %w", key, value, err)
		}
	}
	if masq := given[masqKey]; masq != nil && !into.gateway {
		return fmt.Errorf("-o %s=%s: docker_gwbridge always masquerades; give -o %s=flannel with it, or leave it out", masqKey, masq, gatewayKey)
	}
	return nil
}
