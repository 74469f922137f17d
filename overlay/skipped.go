package overlay

import (
	"cmp"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// skipped is what the store holds of one network and this host cannot use.
type skipped struct {
	now   [skippers]map[Junk]time.Time // since when, by who found it
	total uint64
}

// Who finds that something cannot be used.
const (
	byStore  = iota // a snapshot, and what is made of it
	byPlan          // the backend
	skippers        // how many there are
)

// skip replaces what one finder skips and logs what is new; the same that comes
// back after it was gone is new again. The caller holds mu.
func (o *Overlay) skip(n *network, finder int, junk []Junk) {
	now := make(map[Junk]time.Time, len(junk))
	for _, j := range junk {
		since, known := n.skipped.now[finder][j]
		if !known {
			since = time.Now()
			n.skipped.total++
			o.opt.Log.Warn("the store holds what this host cannot use", "network", title(n.Name), "key", j.Key, "reason", j.Reason)
		}
		now[j] = since
	}
	n.skipped.now[finder] = now
}

// list is everything that is skipped now, by key.
func (s *skipped) list() []report.Skipped {
	var all []report.Skipped
	for _, found := range s.now {
		for j, since := range found {
			all = append(all, report.Skipped{Key: j.Key, Reason: j.Reason, Since: since})
		}
	}
	slices.SortFunc(all, func(a, b report.Skipped) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}

// why tells, by subnet, which peers the plan has no way to.
func (s *skipped) why() map[string]string {
	reasons := map[string]string{}
	for j := range s.now[byPlan] {
		reasons[j.Key] = j.Reason
	}
	return reasons
}
