package driver

import (
	"fmt"
	"strconv"
)

// Keys of the options that the engine sends with a network.
const (
	genericKey    = "com.docker.network.generic" // everything given with -o
	enableIPv4Key = "com.docker.network.enable_ipv4"
	enableIPv6Key = "com.docker.network.enable_ipv6"
	mtuKey        = "com.docker.network.driver.mtu"
)

// minMTU is the smallest MTU IPv4 is asked to work with, RFC 791.
const minMTU = 68

// options are a network's options as typed values.
type options struct {
	mtu int // bytes; 0 for the network's own
}

// parseOptions reads what the engine sent. An error names the option, its
// value and what is accepted.
func parseOptions(raw map[string]any) (options, error) {
	var opt options
	for _, key := range []string{enableIPv4Key, enableIPv6Key} {
		if _, isBool := raw[key].(bool); !isBool && raw[key] != nil {
			return opt, fmt.Errorf("option %s=%v is neither true nor false; give one of them or leave it out", key, raw[key])
		}
	}
	if raw[enableIPv4Key] == false {
		return opt, fmt.Errorf("--ipv4=false: a flannel network needs IPv4; leave it out")
	}
	if raw[enableIPv6Key] == true {
		return opt, fmt.Errorf("--ipv6: the flannel network has no IPv6 subnets; leave it out")
	}
	given, isMap := raw[genericKey].(map[string]any)
	if !isMap && raw[genericKey] != nil {
		return opt, fmt.Errorf("option %s=%v is not an object of texts; give options with -o NAME=VALUE", genericKey, raw[genericKey])
	}
	for key, value := range given {
		text, isText := value.(string)
		if !isText {
			return opt, fmt.Errorf("-o %s=%v is not a text; the flannel driver accepts %s=BYTES", key, value, mtuKey)
		}
		switch key {
		case mtuKey:
			mtu, err := strconv.Atoi(text)
			if err != nil || mtu < minMTU {
				return opt, fmt.Errorf("-o %s=%s: give a number of bytes of at least %d", key, text, minMTU)
			}
			opt.mtu = mtu
		default:
			return opt, fmt.Errorf("-o %s=%s: unknown option; the flannel driver accepts %s; leave it out", key, text, mtuKey)
		}
	}
	return opt, nil
}
