package kernel

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDoorNames reads back what a door's chain is called, and nothing else.
func TestDoorNames(t *testing.T) {
	for _, d := range []Door{{8472, 1}, {8285, 0}, {65535, 1<<24 - 1}} {
		if got, ok := doorOf(d.chain()); !ok || got != d {
			t.Errorf("%s is read as %v, %t", d.chain(), got, ok)
		}
	}
	for _, name := range []string{"", "door_", "door_x", "door_8472_0", "door_08472", "door_8472_1_2", "forward", "door_8472_1_ip"} {
		if d, ok := doorOf(name); ok {
			t.Errorf("%q is read as %v", name, d)
		}
	}
}

func TestDoorText(t *testing.T) {
	const want = `chain door_8472_7 type filter hook input priority -5 policy accept
foreign ip udp 8472 vni 7
foreign ip6 udp 8472 vni 7`
	if got := (Door{8472, 7}).text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := (Admit{Door{8285, 0}, ip("fd00::8")}).String(); got != "admit udp 8285 from fd00::8" {
		t.Error(got)
	}
}

// TestAdmitBatches sends many peers at once, those that come and those that go
// apart, and nothing else with them.
func TestAdmitBatches(t *testing.T) {
	var ops []op
	for range admitBatch + 5 {
		ops = append(ops, op{opAdd, Admit{Door{8472, 1}, ip("10.0.0.8")}, ""})
	}
	ops = append(ops, op{opDelete, Admit{Door{8472, 1}, ip("10.0.0.9")}, ""}, op{opAdd, Door{8472, 1}, ""}, op{opAdd, Neigh{}, ""})
	var sizes []int
	for len(ops) > 0 {
		n := batchable(ops)
		sizes, ops = append(sizes, n), ops[n:]
	}
	if want := []int{admitBatch, 5, 1, 1, 1}; !slices.Equal(sizes, want) {
		t.Errorf("batches of %v, want %v", sizes, want)
	}
}

// FuzzElements reads a message about a set's elements, whatever it holds.
func FuzzElements(f *testing.F) {
	var e encoder
	e.raw(unix.NFPROTO_INET, 0, 0, 0)
	e.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
		for _, addr := range []string{"10.0.0.8", "fd00::8"} {
			e.nest(unix.NFTA_LIST_ELEM, func() {
				e.nest(unix.NFTA_SET_ELEM_KEY, func() { e.addr(unix.NFTA_DATA_VALUE, ip(addr)) })
			})
		}
	})
	if got := parseElements(e.b); !slices.Equal(got, append(got[:0:0], ip("10.0.0.8"), ip("fd00::8"))) {
		f.Fatalf("read %v", got)
	}
	f.Add(e.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, addr := range parseElements(b) {
			if !addr.IsValid() || strings.Contains(addr.String(), "%") {
				t.Errorf("read %v", addr)
			}
		}
		parsePackets(b)
	})
}
