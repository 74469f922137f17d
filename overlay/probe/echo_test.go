package probe

import (
	"errors"
	"testing"
)

func TestPathMTU(t *testing.T) {
	for _, c := range []struct{ most, path, want int }{
		{1500, 1500, 1500}, {1500, 9000, 1500}, {1500, 1400, 1400}, {1500, 1499, 1499},
		{1500, 576, 576}, {1500, 577, 577}, {1500, 575, 0}, {65535, 1450, 1450}, {576, 576, 576},
	} {
		asked := 0
		got, err := PathMTU(576, c.most, func(size int) (bool, error) {
			asked++
			return size <= c.path, nil
		})
		if got != c.want || err != nil || asked > 18 {
			t.Errorf("path %d, at most %d: %d after %d questions, %v; want %d", c.path, c.most, got, asked, err, c.want)
		}
	}
	why := errors.New("network is unreachable")
	if _, err := PathMTU(576, 1500, func(int) (bool, error) { return false, why }); !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestEchoPacket(t *testing.T) {
	for _, size := range []int{0, 28, 29, 1500} {
		b := icmp4.echo(7, 9, size)
		if len(b)+20 != max(size, 28) || checksum(b) != 0 {
			t.Errorf("size %d: %d bytes, checksum %#x", size, len(b), checksum(b))
		}
	}
}
