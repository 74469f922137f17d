package etcd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// value is a lease's value as stock flannel writes it: both public addresses
// always there, the rest left out when empty.
type value struct {
	PublicIP      *netip.Addr
	PublicIPv6    *netip.Addr
	BackendType   string          `json:",omitempty"`
	BackendData   json.RawMessage `json:",omitempty"`
	BackendV6Data json.RawMessage `json:",omitempty"`
}

// encode writes a lease's value.
func encode(l overlay.Lease) ([]byte, error) {
	v := value{
		PublicIP: &l.PublicIP, BackendType: l.BackendType,
		BackendData: l.BackendData, BackendV6Data: l.BackendV6Data,
	}
	if l.PublicIPv6.IsValid() {
		v.PublicIPv6 = &l.PublicIPv6
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the lease of %s: %w", l.Subnet, err)
	}
	return text, nil
}

// decode reads a lease from the last part of its key and its value, of any
// form that flannel has ever written; the oldest is {"PublicIP":"10.8.65.53"}.
func decode(key string, text []byte) (overlay.Lease, error) {
	subnet, subnet6, err := parseKey(key)
	if err != nil {
		return overlay.Lease{}, err
	}
	lease := overlay.Lease{Subnet: subnet, IPv6Subnet: subnet6}
	var v value
	if err := json.Unmarshal(text, &v); err != nil {
		return lease, fmt.Errorf("value %.200q: %w", text, err)
	}
	if v.PublicIP == nil || !hostAddr(*v.PublicIP) || !v.PublicIP.Is4() {
		return lease, fmt.Errorf("value %.200q: PublicIP is not a host's IPv4 address", text)
	}
	lease.PublicIP = *v.PublicIP
	if v.PublicIPv6 != nil && v.PublicIPv6.IsValid() {
		if !hostAddr(*v.PublicIPv6) || !v.PublicIPv6.Is6() {
			return lease, fmt.Errorf("value %.200q: PublicIPv6 is not a host's IPv6 address", text)
		}
		lease.PublicIPv6 = *v.PublicIPv6
	}
	lease.BackendType = v.BackendType
	lease.BackendData, lease.BackendV6Data = given(v.BackendData), given(v.BackendV6Data)
	return lease, nil
}

// hostAddr tells whether packets can be sent to an address of another host.
func hostAddr(ip netip.Addr) bool {
	return ip.IsValid() && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast() &&
		ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// given turns a JSON null into nothing.
func given(raw json.RawMessage) json.RawMessage {
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	return raw
}
