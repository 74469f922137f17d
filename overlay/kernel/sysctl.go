package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// takeSysctls reads the wanted settings that the view does not hold yet. One
// that is missing stays out of the view; all of IPv6 counts as set where the
// kernel has none.
func (k *Kernel) takeSysctls(v *view, want State) error {
	var missing []Sysctl
	for _, s := range want.Sysctls {
		if _, known := v.sysctls[s.Key]; !known {
			missing = append(missing, s)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return k.ns.run(func() error {
		for _, s := range missing {
			value, err := k.readSysctl(s.Key)
			switch {
			case err == nil:
				v.sysctls[s.Key] = value
				if value == fields(s.Value) {
					v.sysctls[s.Key] = s.Value
				}
			case k.without(s.Key):
				v.sysctls[s.Key] = s.Value
			}
		}
		return nil
	})
}

func (k *Kernel) readSysctl(key string) (string, error) {
	text, err := os.ReadFile(filepath.Join(k.sysNet, key))
	return fields(string(text)), err
}

// IPv6Forwarding lets a host route IPv6. A device whose accept_ra is 1 hears no
// routers then, and the host loses the default route that it has of them; so
// those that hear them keep doing so, with 2.
const IPv6Forwarding = "ipv6/conf/all/forwarding"

// writeSysctl sets one value.
func (k *Kernel) writeSysctl(s Sysctl) error {
	return k.ns.run(func() error {
		if s.Key == IPv6Forwarding && s.Value == "1" {
			if err := k.keepRouters(); err != nil {
				return err
			}
		}
		err := os.WriteFile(filepath.Join(k.sysNet, s.Key), []byte(s.Value), 0)
		if errors.Is(err, fs.ErrNotExist) && k.without(s.Key) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", s, err)
		}
		return nil
	})
}

// keepRouters has every device that hears routers go on when it forwards.
func (k *Kernel) keepRouters() error {
	root := filepath.Join(k.sysNet, "ipv6", "conf")
	devices, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list devices with IPv6: %w", err)
	}
	for _, d := range devices {
		is := func(setting, value string) bool {
			now, err := k.readSysctl(filepath.Join("ipv6/conf", d.Name(), setting))
			return err == nil && now == value
		}
		if d.Name() == "all" || d.Name() == "default" || !is("accept_ra", "1") || !is("forwarding", "0") || !is("disable_ipv6", "0") {
			continue
		}
		err := os.WriteFile(filepath.Join(root, d.Name(), "accept_ra"), []byte("2"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("have %s go on hearing IPv6 routers: %w", d.Name(), err)
		}
	}
	return nil
}

// without tells whether the key belongs to IPv6 and the kernel has no IPv6.
func (k *Kernel) without(key string) bool {
	if !strings.HasPrefix(key, "ipv6/") {
		return false
	}
	_, err := os.Stat(filepath.Join(k.sysNet, "ipv6", "conf"))
	return errors.Is(err, fs.ErrNotExist)
}

// fields is a value with single spaces, as many-valued settings compare.
func fields(value string) string { return strings.Join(strings.Fields(value), " ") }
