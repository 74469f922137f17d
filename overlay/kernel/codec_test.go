package kernel

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRoundTrip reads back what is sent: requests and notifications are laid
// out alike.
func TestRoundTrip(t *testing.T) {
	vxlan := blue().Links[1]
	vxlan.VXLAN.Port, vxlan.VXLAN.GBP, vxlan.VXLAN.Learning = 4789, true, true
	if got, ok := parseLink(createLink(vxlan, 3).body); !ok || got.name != vxlan.Name || got.mac != vxlan.MAC || got.kind != "vxlan" || got.vxlanDev != 3 {
		t.Errorf("vxlan: %+v", got)
	} else if got.vxlan.Dev = "eth0"; got.vxlan != vxlan.VXLAN {
		t.Errorf("vxlan: %+v", got.vxlan)
	}
	six := Link{Name: "flannel.6", VXLAN: VXLAN{VNI: 6, Local: ip("fd00::1")}}
	if got, _ := parseLink(createLink(six, 0).body); got.vxlan.Local != six.VXLAN.Local {
		t.Errorf("vxlan over IPv6: %+v", got)
	}
	veth := blue().Veths[0]
	if got, ok := parseLink(createVeth(veth, 4).body); !ok || got.name != "flv1" || got.kind != "veth" || got.mtu != 1450 || got.master != 4 || !got.up {
		t.Errorf("veth: %+v", got)
	}
	if got, ok := parseLink(markLink("fl-x").body); !ok || got.alias != Alias || got.up {
		t.Errorf("mark: %+v", got)
	}
	for _, p := range []string{"10.5.7.1/24", "fd00::1/64"} {
		got, ok := parseAddr(addrMessage(unix.RTM_NEWADDR, 0, prefix(p), 7).body)
		if !ok || got.prefix != prefix(p) || got.index != 7 {
			t.Errorf("addr %s: %+v", p, got)
		}
	}
	for _, n := range []Neigh{{"l", ip("10.5.8.0"), mac(8)}, {"l", ip("fd00::"), mac(8)}} {
		info, _ := parseNeigh(neighMessage(unix.RTM_NEWNEIGH, 0, n, 7).body)
		if got, ok := info.neigh("l"); !ok || got != n || info.index != 7 {
			t.Errorf("%s: %+v", n, info)
		}
	}
	f := FDB{"l", mac(8), ip("10.0.0.8")}
	info, _ := parseNeigh(fdbMessage(unix.RTM_NEWNEIGH, 0, f, 7).body)
	if got, ok := info.fdb("l"); !ok || got != f {
		t.Errorf("%s: %+v", f, info)
	}
	for _, r := range []Route{
		{Dst: prefix("10.5.8.0/24"), Via: ip("10.5.8.0"), Link: "l", OnLink: true},
		{Dst: prefix("10.5.8.0/24"), Via: ip("10.0.0.8"), Link: "l"},
		{Dst: prefix("10.5.8.0/24"), Via: ip("10.0.0.8"), Link: "l", Src: ip("10.5.7.1")},
		{Dst: prefix("10.5.8.0/24"), Link: "l"},
		{Dst: prefix("fd05::/64"), Via: ip("fd05::"), Link: "l", OnLink: true},
	} {
		info, ok := parseRoute(routeMessage(unix.RTM_NEWROUTE, 0, r.info(7)).body)
		if got, fits := info.route(map[int]string{7: "l"}); !ok || !fits || got != r {
			t.Errorf("%s: %+v", r, info)
		}
	}
}

func TestMetric(t *testing.T) {
	for dst, want := range map[string]uint32{
		"10.5.8.0/24": 1 + 8, "10.5.255.0/24": 256, "10.6.0.0/24": 1, "10.5.8.128/25": 1 + 17,
		"10.5.0.0/16": 1 + 5, "0.0.0.0/0": 1, "10.5.8.7/32": 1 + 7, "fd00::/64": 1024,
	} {
		if got := metric(prefix(dst)); got != want {
			t.Errorf("metric(%s) = %d, want %d", dst, got, want)
		}
	}
}

func TestSplitMessages(t *testing.T) {
	b := appendMessage(nil, 1, 2, 3, []byte("odd"))
	b = appendMessage(b, 4, 5, 6, nil)
	want := []answer{{1, 2, 3, 0, []byte("odd")}, {4, 5, 6, 0, []byte{}}}
	if got := splitMessages(b); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if got := splitMessages(b[:len(b)-1]); len(got) != 1 {
		t.Errorf("torn: %v", got)
	}
}

func TestAnswerError(t *testing.T) {
	minus := func(errno int32) []byte {
		var e encoder
		e.u32(uint32(-errno))
		return e.b
	}
	echo := make([]byte, unix.SizeofNlMsghdr)
	var words encoder
	words.text(unix.NLMSGERR_ATTR_MSG, "not so")
	for _, c := range []struct {
		answer answer
		want   string
	}{
		{answer{kind: unix.NLMSG_ERROR, body: minus(0)}, ""},
		{answer{kind: unix.NLMSG_DONE}, ""},
		{answer{kind: unix.NLMSG_ERROR, body: minus(int32(unix.EEXIST))}, "file exists"},
		{answer{kind: unix.NLMSG_ERROR, flags: unix.NLM_F_CAPPED | unix.NLM_F_ACK_TLVS, body: append(append(minus(int32(unix.EEXIST)), echo...), words.b...)}, "file exists (not so)"},
		{answer{kind: unix.NLMSG_DONE, flags: unix.NLM_F_ACK_TLVS, body: append(minus(int32(unix.EINVAL)), words.b...)}, "invalid argument (not so)"},
		{answer{kind: unix.NLMSG_ERROR, flags: unix.NLM_F_ACK_TLVS, body: append(minus(int32(unix.EEXIST)), 255, 255, 0, 0)}, "file exists"},
	} {
		got := ""
		if err := c.answer.err(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.answer, got, c.want)
		}
	}
}

// FuzzParse reads torn and twisted messages: none may panic or loop.
func FuzzParse(f *testing.F) {
	for _, m := range []message{
		createLink(blue().Links[1], 3), createVeth(blue().Veths[0], 1), markLink("fl-x"),
		addrMessage(unix.RTM_NEWADDR, 0, prefix("fd00::1/64"), 7),
		neighMessage(unix.RTM_NEWNEIGH, 0, blue().Neighs[0], 7), fdbMessage(unix.RTM_NEWNEIGH, 0, blue().FDB[0], 7),
		routeMessage(unix.RTM_NEWROUTE, 0, blue().Routes[0].info(7)),
	} {
		f.Add(m.kind, m.body)
	}
	f.Fuzz(func(_ *testing.T, kind uint16, body []byte) {
		v := viewOf(blue())
		for _, kind := range []uint16{kind, unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_NEWNEIGH, unix.RTM_NEWROUTE} {
			if e, ok := parseEvent(answer{kind: kind, body: body}); ok {
				v.judge([]event{e}, nil)
				if e.route != nil {
					v.takeRoute(*e.route, nil)
				}
			}
		}
		_ = parseChain(body).String()
		_ = parseRule(body)
		_ = answer{kind: kind, flags: kind, body: body}.err()
		_ = splitMessages(body)
		_ = comment(body)
		k := Kernel{}
		k.concerns(answer{kind: kind, body: body})
	})
}
