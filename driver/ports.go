package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/docker-flannel/docker-flannel/overlay"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Publisher is what the clerk asks about ports.
type Publisher interface {
	// Publish leads ports of this host to an endpoint; none withdraws them.
	Publish(ctx context.Context, network, endpoint string, asked []overlay.Publish) error
}

// portmapKey holds what was asked for with -p and -P.
const portmapKey = "com.docker.network.portmap"

// binding is one published port as the engine writes it.
type binding struct {
	Proto       byte
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// Publish leads the ports that the engine names to the container. Only the
// endpoint that is the container's default gateway is asked for it.
func (c *Clerk) Publish(ctx context.Context, req *network.ProgramExternalConnectivityRequest) error {
	if err := checkIDs(req.NetworkID, req.EndpointID); err != nil {
		return err
	}
	asked, err := parsePorts(req.Options)
	if err != nil {
		return err
	}
	return c.ports.Publish(ctx, req.NetworkID, req.EndpointID, asked)
}

// Withdraw ends what Publish began; an unknown endpoint is no error.
func (c *Clerk) Withdraw(ctx context.Context, req *network.RevokeExternalConnectivityRequest) error {
	if err := checkIDs(req.NetworkID, req.EndpointID); err != nil {
		return err
	}
	return c.ports.Publish(ctx, req.NetworkID, req.EndpointID, nil)
}

// parsePorts reads the published ports. An error names the port as -p does.
func parsePorts(raw map[string]any) ([]overlay.Publish, error) {
	if raw[portmapKey] == nil {
		return nil, nil
	}
	text, err := json.Marshal(raw[portmapKey])
	if err != nil {
		return nil, fmt.Errorf("option %s: %w", portmapKey, err)
	}
	var bindings []binding
	if err := json.Unmarshal(text, &bindings); err != nil {
		return nil, fmt.Errorf("option %s=%s is not Docker's list of ports: %w; correct -p", portmapKey, text, err)
	}
	var asked []overlay.Publish
	for _, b := range bindings {
		p, err := b.publish()
		if err != nil {
			return nil, fmt.Errorf("-p %s: %w", b, err)
		}
		asked = append(asked, p)
	}
	return asked, nil
}

func (b binding) publish() (overlay.Publish, error) {
	var host netip.Addr // of every family that the container has
	if b.HostIP != "" {
		var err error
		if host, err = netip.ParseAddr(b.HostIP); err != nil {
			return overlay.Publish{}, fmt.Errorf("host address %q is no IP address; correct it or leave it out", b.HostIP)
		}
	}
	host = host.Unmap()
	proto := kernel.Protocol(b.Proto)
	switch {
	case host == netip.IPv6Loopback():
		return overlay.Publish{}, fmt.Errorf("host address ::1: Linux leads nothing from there to a container; give 127.0.0.1 or another address of this host, or leave it out")
	case host.Is6() && (host.IsLinkLocalUnicast() || host.IsMulticast()):
		return overlay.Publish{}, fmt.Errorf("host address %s: nobody reaches a container by it; give another address of this host, or leave it out", host)
	case proto != kernel.TCP && proto != kernel.UDP && proto != kernel.SCTP:
		return overlay.Publish{}, fmt.Errorf("protocol %s; give tcp, udp or sctp", proto)
	case b.Port == 0:
		return overlay.Publish{}, fmt.Errorf("container port 0; give one from 1 to 65535")
	}
	last := max(b.HostPort, b.HostPortEnd)
	if b.HostPort == 0 {
		last = 0 // whatever is free
	}
	return overlay.Publish{Proto: proto, Port: b.Port, Host: host, First: b.HostPort, Last: last}, nil
}

// String is the binding as -p takes it.
func (b binding) String() string {
	text := ""
	if b.HostIP != "" {
		text = b.HostIP + ":"
		if strings.Contains(b.HostIP, ":") {
			text = "[" + b.HostIP + "]:"
		}
	}
	if b.HostPort != 0 {
		text += fmt.Sprint(b.HostPort)
	}
	if b.HostPortEnd > b.HostPort {
		text += fmt.Sprintf("-%d", b.HostPortEnd)
	}
	return fmt.Sprintf("%s:%d/%s", text, b.Port, kernel.Protocol(b.Proto))
}
