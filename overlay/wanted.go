package overlay

import "github.com/docker-flannel/docker-flannel/overlay/kernel"

// Wanted is what the next pass will make true on this host.
func (o *Overlay) Wanted() kernel.State {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.plan()
}
