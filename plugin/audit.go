package plugin

import (
	"context"
	"slices"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// settling is how long a difference must last: what is being changed at the
// moment is none.
const settling = 300 * time.Millisecond

// audit compares the kernel with what is wanted, twice where they differ, and
// tells what both looks saw.
func audit(ctx context.Context, want func() kernel.State, look func(kernel.State) ([]kernel.Difference, error)) ([]report.Difference, error) {
	first, err := look(want())
	if err != nil || len(first) == 0 {
		return []report.Difference{}, err
	}
	select {
	case <-time.After(settling):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	second, err := look(want())
	if err != nil {
		return nil, err
	}
	out := []report.Difference{}
	for _, d := range second {
		if slices.ContainsFunc(first, func(f kernel.Difference) bool { return f.Object == d.Object }) {
			out = append(out, report.Difference{Object: d.Object, Change: d.Change})
		}
	}
	return out, nil
}
