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

// writeSysctl sets one value.
func (k *Kernel) writeSysctl(s Sysctl) error {
	return k.ns.run(func() error {
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
