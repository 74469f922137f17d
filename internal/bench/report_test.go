package main

import (
	"strings"
	"testing"
)

func TestMarkdown(t *testing.T) {
	paths := []path{{name: limitPath}, {name: vxlanPath}, {name: ourVXLAN}}
	rounds := [][]figures{
		{{tcp1: 5, small: 100, p50: 20}, {tcp1: 4, small: 120, p50: 30}},
		{{tcp1: 4, small: 50, p50: 40}, {tcp1: 3, small: 60, p50: 50}},
		{{tcp1: 4.4, small: 40, p50: 40}, {tcp1: 2.7, small: 60, p50: 60}},
	}
	got := markdown([]section{newSection("A mode", paths, rounds)})
	want := `
A mode, medians of 2 rounds:

| path | TCP 1 stream Gbit/s | ratio | TCP 4 streams Gbit/s | ratio | CPU s/GB | small UDP kpps | p50 µs | p99 µs |
|---|---|---|---|---|---|---|---|---|
| host to host (the limit) | 4.50 | 1.00 | - | - | - | 110 | 25 | - |
| kernel VXLAN by hand | 3.50 | 0.78 | - | - | - | 55 | 45 | - |
| our vxlan | 3.55 | 0.79 | - | - | - | 50 | 50 | - |

Ratios, medians of the rounds' own (least-greatest):

| ratio | TCP 1 stream | TCP 4 streams | small UDP | p50 |
|---|---|---|---|---|
| our vxlan / kernel VXLAN by hand | 1.00 (0.90-1.10) | - | 0.90 (0.80-1.00) | 1.10 (1.00-1.20) |
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestChosen(t *testing.T) {
	for _, c := range []struct {
		words, want string
	}{
		{"", "tcp1 tcp4 udp rr"},
		{"TCP", "tcp1 tcp4"},
		{"udp,rr", "udp rr"},
		{"sctp", ""},
	} {
		var got []string
		for _, name := range kindNames() {
			if chosen(name, c.words) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q chooses %q, want %q", c.words, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}
