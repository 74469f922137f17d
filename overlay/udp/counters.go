package udp

import "sync/atomic"

// reason says why a packet was dropped.
type reason int

const (
	noTable reason = iota
	notIPv4
	malformed
	noRoute
	ttlExceeded
	tooBig
	unknownHost
	wrongSource
	wrongDestination
	sendFailed
	writeFailed
	reasons
)

var reasonNames = [reasons]string{
	noTable:          "no-table",          // before the first Set
	notIPv4:          "not-ipv4",          // the wire format carries nothing else
	malformed:        "malformed",         // lengths in the header that cannot be
	noRoute:          "no-route",          // no peer has the destination; answered
	ttlExceeded:      "ttl-exceeded",      // answered
	tooBig:           "too-big",           // larger than the MTU with DF set; answered
	unknownHost:      "unknown-host",      // datagram from no peer's address and port
	wrongSource:      "wrong-source",      // inner source outside the sending peer's subnet
	wrongDestination: "wrong-destination", // inner destination outside this host's subnet
	sendFailed:       "send-failed",       // refused by the socket
	writeFailed:      "write-failed",      // refused by the TUN device
}

// Counters are totals since Open. Packets are inner packets as on the wire.
type Counters struct {
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64
	Drops                          map[string]uint64 // by reason, without those that are zero
}

// tally is one thread's count. The thread counts in plain fields and shares
// them once a batch, because shared counting a packet is dear.
type tally struct {
	now    counts
	shared struct {
		packets, bytes atomic.Uint64
		drops          [reasons]atomic.Uint64
	}
}

type counts struct {
	packets, bytes uint64
	drops          [reasons]uint64
	dropped        bool
}

func (t *tally) drop(r reason) {
	t.now.drops[r]++
	t.now.dropped = true
}

func (t *tally) carried(packets, bytes int) {
	t.now.packets += uint64(packets)
	t.now.bytes += uint64(bytes)
}

// share makes the counts visible to other threads.
func (t *tally) share() {
	t.shared.packets.Add(t.now.packets)
	t.shared.bytes.Add(t.now.bytes)
	if t.now.dropped {
		for r, n := range t.now.drops {
			t.shared.drops[r].Add(n)
		}
	}
	t.now = counts{}
}

// Counters returns the totals so far.
func (d *Device) Counters() Counters {
	c := Counters{
		SentPackets:     d.out.shared.packets.Load() + d.errs.shared.packets.Load(),
		SentBytes:       d.out.shared.bytes.Load() + d.errs.shared.bytes.Load(),
		ReceivedPackets: d.in.shared.packets.Load(),
		ReceivedBytes:   d.in.shared.bytes.Load(),
		Drops:           map[string]uint64{},
	}
	for r, name := range reasonNames {
		if n := d.out.shared.drops[r].Load() + d.in.shared.drops[r].Load() + d.errs.shared.drops[r].Load(); n > 0 {
			c.Drops[name] = n
		}
	}
	return c
}
