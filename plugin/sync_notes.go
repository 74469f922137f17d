package plugin

import (
	"context"
	"net/netip"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
)

// noteTTL is the least that a note is kept: several looks.
const noteTTL = 8 * lookEvery

// note tells the store how this host stands to the networks.
func (s *syncer) note(ctx context.Context, have map[string]found) {
	host := s.host().PublicIP
	if !host.IsValid() {
		return
	}
	if s.addr.IsValid() && s.addr != host {
		for name := range s.stands {
			if !s.stand(ctx, name, s.addr, blueprint.Gone) {
				return
			}
		}
		clear(s.noted)
	}
	s.addr = host
	for name, m := range s.memory {
		p := blueprint.Gone
		if f, found := have[name]; found && !m.Apart && f.ID == m.Docker {
			if p = blueprint.Here; f.Containers > 0 {
				p = blueprint.Used
			}
		}
		if when, known := s.noted[name]; known && s.stands[name] == p && (p == blueprint.Gone || time.Since(when) < s.ttl/3) {
			continue
		}
		if !s.stand(ctx, name, host, p) {
			return
		}
	}
}

func (s *syncer) stand(ctx context.Context, name string, host netip.Addr, p blueprint.Presence) bool {
	err := s.shared.Note(ctx, name, host, p, s.ttl)
	if err != nil {
		delete(s.noted, name)
		if ctx.Err() == nil {
			s.say("note", "", "the other hosts do not learn whether containers use a Docker network, trying on", "network", name, "error", err)
		}
		return false
	}
	delete(s.said, "note")
	s.noted[name], s.stands[name] = time.Now(), p
	return true
}
