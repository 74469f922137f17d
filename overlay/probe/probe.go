// Package probe finds out what becomes of a host's packets on their way to a
// peer. All it needs of the peer is a kernel: a datagram to a port that nobody
// listens at is answered with ICMP port unreachable, unless its checksum is
// wrong.
package probe

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Verdict is what was found out about checksums.
type Verdict byte

const (
	// Undetermined says that the peer answers nothing: it is down, or a
	// firewall keeps the answers back.
	Undetermined Verdict = iota
	// Healthy says that datagrams arrive whose checksum was left to the
	// devices.
	Healthy
	// Faulty says that only datagrams without a checksum arrive.
	Faulty
)

// String is the verdict in a word.
func (v Verdict) String() string { return [...]string{"undetermined", "healthy", "faulty"}[v] }

const (
	// patience is how long an answer may take. A kernel that has sent too many
	// ICMP errors sends one a second (icmp_ratelimit).
	patience = time.Second
	// enough rounds make a fault, silence rounds without any answer end the
	// probe.
	enough, silence = 4, 2
)

// UDP asks by UDP datagrams from the current network namespace.
type UDP struct{}

// Checksums tells whether datagrams arrive at to whose checksum this host
// leaves to its devices. from is the source address. It takes a round trip
// where all is well, and 4 s for a fault.
func (UDP) Checksums(ctx context.Context, from, to netip.Addr) (Verdict, error) {
	verdict, err := judge(func() (answers, error) { return ask(ctx, from, to, patience) })
	if err != nil {
		return Undetermined, fmt.Errorf("probe checksums from %s to %s: %w", from, to, err)
	}
	return verdict, nil
}

// answers are to a pair of datagrams, sent in this order.
type answers struct {
	summed bool // to the one with a checksum
	bare   bool // to the one without
}

// judge asks round after round. A peer's limit on ICMP errors, or a full queue
// on the way, cannot pass for a fault: of a pair it would swallow the datagram
// without a checksum, which comes second, as well. Loss could, but not in every
// round while no datagram without a checksum is lost.
func judge(round func() (answers, error)) (Verdict, error) {
	bare, silent := 0, 0
	for silent < silence {
		got, err := round()
		switch {
		case err != nil:
			return Undetermined, err
		case got.summed:
			return Healthy, nil
		case got.bare:
			bare++
		default:
			silent++
		}
		if bare == enough {
			return Faulty, nil
		}
	}
	return Undetermined, nil
}
