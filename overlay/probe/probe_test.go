package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	lost := errors.New("network is unreachable")
	for _, c := range []struct {
		name   string
		rounds string // s: summed answered, b: only bare, -: none, e: an error; the last goes on
		want   Verdict
		asked  int
	}{
		{"healthy", "s", Healthy, 1},
		{"healthy after loss", "-s", Healthy, 2},
		{"healthy after a loss that looks like the fault", "bbbs", Healthy, 4},
		{"fault", "b", Faulty, 4},
		{"fault with loss", "b-bbb", Faulty, 5},
		{"nobody", "-", Undetermined, 2},
		{"limited to one answer", "b-", Undetermined, 3},
		{"limited to three answers", "bbb-", Undetermined, 5},
		{"no way", "e", Undetermined, 1},
	} {
		asked := 0
		got, err := judge(func() (answers, error) {
			step := c.rounds[min(asked, len(c.rounds)-1)]
			asked++
			if step == 'e' {
				return answers{}, lost
			}
			return answers{summed: step == 's', bare: step != '-'}, nil
		})
		if got != c.want || asked != c.asked || (err != nil) != (c.rounds == "e") {
			t.Errorf("%s: %s after %d rounds, error %v; want %s after %d", c.name, got, asked, err, c.want, c.asked)
		}
	}
}

// loopback answers datagrams to a closed port, as every kernel does.
var loopback = netip.MustParseAddr("127.0.0.1")

func TestChecksums(t *testing.T) {
	if got, err := (UDP{}).Checksums(t.Context(), loopback, loopback); got != Healthy || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := (UDP{}).Checksums(t.Context(), netip.MustParseAddr("192.0.2.1"), loopback); got != Undetermined || err == nil {
		t.Errorf("from an address that is not ours: %s, %v", got, err)
	}
}

// TestAsk waits in vain, and not longer than it is told to.
func TestAsk(t *testing.T) {
	mute, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	c, err := dial(t.Context(), loopback, mute.LocalAddr().(*net.UDPAddr).AddrPort(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, err := answered(c, time.Millisecond); ok || err != nil {
		t.Errorf("answered %t, %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ask(ctx, loopback, loopback, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
