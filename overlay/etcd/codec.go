package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// leaseJSON is a lease's value, field by field as flanneld writes it
// (pkg/lease.LeaseAttrs). Fields it does not know are ignored, here and there.
type leaseJSON struct {
	PublicIP      string
	PublicIPv6    *string
	BackendType   string          `json:",omitempty"`
	BackendData   json.RawMessage `json:",omitempty"`
	BackendV6Data json.RawMessage `json:",omitempty"`
}

// encodeLease writes a lease's value. Its subnets are in the key.
func encodeLease(l overlay.Lease) ([]byte, error) {
	if !l.PublicIP.Is4() {
		return nil, fmt.Errorf("PublicIP %s: an IPv4 address is accepted", l.PublicIP)
	}
	raw := leaseJSON{
		PublicIP:      l.PublicIP.String(),
		BackendType:   l.BackendType,
		BackendData:   l.BackendData,
		BackendV6Data: l.BackendV6Data,
	}
	if l.PublicIPv6.IsValid() {
		text := l.PublicIPv6.String()
		raw.PublicIPv6 = &text
	}
	value, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("backend data of lease %s: %w", l.Subnet, err)
	}
	return value, nil
}

// decodeLease reads a lease's value, down to the oldest form
// {"PublicIP":"10.8.65.53"}.
func decodeLease(value []byte) (overlay.Lease, error) {
	var raw leaseJSON
	if err := json.Unmarshal(value, &raw); err != nil {
		return overlay.Lease{}, fmt.Errorf("not a lease's JSON: %w", err)
	}
	if raw.PublicIP == "" {
		return overlay.Lease{}, errors.New("PublicIP is missing")
	}
	ip, err := netip.ParseAddr(raw.PublicIP)
	if err != nil || !ip.Is4() || ip.IsUnspecified() {
		return overlay.Lease{}, fmt.Errorf("PublicIP %q is not a host's IPv4 address", raw.PublicIP)
	}
	l := overlay.Lease{
		PublicIP:      ip,
		BackendType:   raw.BackendType,
		BackendData:   present(raw.BackendData),
		BackendV6Data: present(raw.BackendV6Data),
	}
	if raw.PublicIPv6 != nil {
		ip, err := netip.ParseAddr(*raw.PublicIPv6)
		if err != nil || !ip.Is6() || ip.Is4In6() || ip.Zone() != "" {
			return overlay.Lease{}, fmt.Errorf("PublicIPv6 %q is not an IPv6 address", *raw.PublicIPv6)
		}
		l.PublicIPv6 = ip
	}
	return l, nil
}

// present takes null for absent.
func present(data json.RawMessage) json.RawMessage {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	return data
}
