package overlay_test

import (
	"context"
	"errors"
	"testing"

	"github.com/docker-flannel/docker-flannel/overlay"
)

// severed is a store where renewals hang until the connection is cut because the
// host has moved.
type severed struct {
	*memory
	claims chan struct{} // takes what hangs
	cut    chan struct{}
}

func (s *severed) Claim(ctx context.Context, name string, c overlay.Claim) (overlay.Lease, error) {
	select {
	case <-s.cut:
		return s.memory.Claim(ctx, name, c)
	default:
	}
	if !c.Must {
		return s.memory.Claim(ctx, name, c)
	}
	select {
	case s.claims <- struct{}{}:
		<-s.cut
		return overlay.Lease{}, errors.New("use of closed network connection")
	case <-ctx.Done():
		return overlay.Lease{}, ctx.Err()
	}
}

func (s *severed) Moved() { close(s.cut) }

// TestMovesDuringRenewal: what is cut off because the host moves is no error.
func TestMovesDuringRenewal(t *testing.T) {
	store := &severed{memory: newMemory(), claims: make(chan struct{}), cut: make(chan struct{})}
	h := start(t, store, newBoard("192.0.2.1"), t.TempDir())
	n := h.network(t)
	<-store.claims
	h.board.move("192.0.2.9")
	await(t, "the lease", func() string { return store.held()[n.Subnet].PublicIP.String() }, "192.0.2.9")
	lacksText(t, "log", h.log.String(), "level=ERROR")
}
