package plugin

import (
	"context"
	"net/netip"
	"time"
)

// note tells the store which networks containers use here.
func (s *syncer) note(ctx context.Context, have map[string]found) {
	host := s.host().PublicIP
	if !host.IsValid() {
		return
	}
	if s.addr.IsValid() && s.addr != host {
		for name := range s.used {
			if !s.use(ctx, name, s.addr, false) {
				return
			}
		}
		clear(s.noted)
	}
	s.addr = host
	for name, m := range s.memory {
		f, here := have[name]
		used := here && !m.Apart && f.ID == m.Docker && f.Containers > 0
		if when, fresh := s.noted[name]; fresh && s.used[name] == used && (!used || time.Since(when) < s.ttl/3) {
			continue
		}
		if !s.use(ctx, name, host, used) {
			return
		}
	}
}

func (s *syncer) use(ctx context.Context, name string, host netip.Addr, used bool) bool {
	err := s.shared.Use(ctx, name, host, used, s.ttl)
	if err != nil {
		delete(s.noted, name)
		if ctx.Err() == nil {
			s.say("use", "", "the other hosts do not learn whether containers use a Docker network, trying on", "network", name, "error", err)
		}
		return false
	}
	delete(s.said, "use")
	s.noted[name], s.used[name] = time.Now(), used
	return true
}
