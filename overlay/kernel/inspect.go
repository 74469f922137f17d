package kernel

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// What a person who looks for a fault wants to know of a namespace. Nothing
// here changes it.

// Interface is a network device, any device.
type Interface struct {
	Name  string
	Kind  string // such as bridge or vxlan; empty for hardware
	MTU   int    // bytes
	Up    bool
	Ours  bool // carries Alias
	Addrs []netip.Prefix
}

// Interfaces lists the namespace's devices by name.
func (k *Kernel) Interfaces() ([]Interface, error) {
	links, err := k.readLinks()
	if err != nil {
		return nil, err
	}
	addrs, err := k.readAddrs()
	if err != nil {
		return nil, err
	}
	out := make([]Interface, 0, len(links))
	for _, l := range links {
		i := Interface{Name: l.name, Kind: l.kind, MTU: l.mtu, Up: l.up, Ours: l.alias == Alias}
		for _, a := range addrs {
			if a.index == l.index {
				i.Addrs = append(i.Addrs, a.prefix)
			}
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Interface) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Sysctls reads settings by their keys below /proc/sys/net, as
// "ipv4/ip_forward"; one that does not exist is left out.
func (k *Kernel) Sysctls(keys ...string) (map[string]string, error) {
	values := map[string]string{}
	err := k.ns.run(func() error {
		for _, key := range keys {
			if value, err := k.readSysctl(key); err == nil {
				values[key] = value
			}
		}
		return nil
	})
	return values, err
}

// LegacyMending tells what to do where a filter table of the legacy xtables
// drops forwarded packets without the two rules that let ours pass; empty where
// nothing is to be done.
func (k *Kernel) LegacyMending() (mending, reason string) {
	chain, err := k.legacyGap()
	if err == nil {
		return "", ""
	}
	return legacyCommand(chain), err.Error()
}

// trials are the objects that a network is made of, by what the kernel needs
// for them.
var trials = map[string]State{
	"bridge": {Links: []Link{{Name: BridgePrefix + "trial"}}},
	"vxlan":  {Links: []Link{{Name: VXLANPrefix + "1", VXLAN: VXLAN{VNI: 1}}}},
	"tun":    {Links: []Link{{Name: TUNPrefix + "0", TUN: true}}},
	"veth": {Veths: []Veth{{
		Name: VethPrefix + "trial", Peer: VethPeerPrefix + "trial", MAC: MAC{2, 0, 0, 0, 0, 1}, MTU: 1400, Create: true,
	}}},
	"nf_tables": {
		Forwards: []Forward{{In: BridgePrefix + "trial", Out: BridgePrefix + "trial"}}, Guards: []string{BridgePrefix + "trial"},
		Doors: []Door{{Port: 8472, VNI: 1}}, Admits: []Admit{{Door{Port: 8472, VNI: 1}, netip.IPv6Loopback()}},
	},
}

// Features makes, in a network namespace that is gone afterwards, one of
// everything that a network is made of, and tells for each what the kernel said
// against it, nil for nothing. It needs CAP_SYS_ADMIN.
func Features(ctx context.Context) (map[string]error, error) {
	type answer struct {
		found map[string]error
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, and the namespace, end with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- answer{err: fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		found, err := try(ctx)
		done <- answer{found, err}
	}()
	a := <-done
	return a.found, a.err
}

// try makes every trial in the namespace of the calling thread.
func try(ctx context.Context) (map[string]error, error) {
	found := map[string]error{}
	for name, want := range trials {
		k, err := Open(Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		found[name] = nil
		if failed := k.Apply(ctx, want).Failed; len(failed) > 0 {
			found[name] = failed[0]
		}
		if err := k.Close(); err != nil {
			return nil, err
		}
	}
	return found, nil
}
