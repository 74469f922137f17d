package plugin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestLife is the control of the tests below: each call alone changes what it
// is to change, and all together leave nothing behind.
func TestLife(t *testing.T) {
	d := newDoor(t)
	changes := map[string]bool{}
	var ends []string
	for range 2 {
		for _, s := range life {
			before := d.state(t)
			d.take(s)
			changes[s.path] = changes[s.path] || d.state(t) != before
		}
		ends = append(ends, d.state(t))
	}
	if ends[0] != ends[1] || !strings.HasSuffix(ends[0], "addresses.json: {\"version\":1,\"pools\":[]}\n\n") || strings.Contains(ends[0], netID) {
		t.Errorf("left behind:\n%s\nand the second time:\n%s", ends[0], ends[1])
	}
	idle := 0
	for _, changed := range changes {
		if !changed {
			idle++
		}
	}
	if idle != 5 { // Leave, EndpointOperInfo, Discover and the two of ExternalConnectivity
		t.Errorf("changed the state: %v", changes)
	}
}

// TestTruncated cuts every call short at every byte, where the whole call
// succeeds.
func TestTruncated(t *testing.T) {
	d := newDoor(t)
	for _, s := range life {
		for n := range len(s.body) {
			d.refused("POST", s.path, s.body[:n], s.path, "try again")
		}
		d.take(s)
	}
}

// TestNoBody gives every call bodies without any field of it.
func TestNoBody(t *testing.T) {
	d := newDoor(t)
	deep := strings.Repeat("[", 100_000)
	for _, s := range life {
		for body, says := range map[string]string{
			"": "empty", "\n": "empty", "null": "empty", "[]": "array", "7": "number", `"x"`: "string", "true": "bool",
			"{}{}": "not JSON", s.body + "x": "not JSON", "\x00": "not JSON", deep: "depth", `{"Options":` + deep: "depth",
		} {
			d.refused("POST", s.path, body, s.path, says)
		}
		for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "PATCH", "post"} {
			d.refused(method, s.path, s.body, s.path, method, "POST")
		}
		d.take(s)
	}
}

// loose are fields of which any content is accepted, and left unread.
var loose = map[string]bool{"DiscoveryData": true, "com.docker.network.portmap": true}

// twisted returns body with each of its fields in turn as another type, and
// the field's name and that of the outermost one around it.
func twisted(t *testing.T, body string) map[string][2]string {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal([]byte(body), &whole); err != nil {
		t.Fatal(err)
	}
	out := map[string][2]string{}
	var walk func(fields map[string]any, around string)
	walk = func(fields map[string]any, around string) {
		for name, good := range fields {
			if loose[name] {
				continue
			}
			for _, bad := range []any{7.5, true, "text", []any{"x"}, map[string]any{"x": []any{}}} {
				if fmt.Sprintf("%T", bad) == fmt.Sprintf("%T", good) {
					continue
				}
				fields[name] = bad
				text, err := json.Marshal(whole)
				if err != nil {
					t.Fatal(err)
				}
				out[string(text)] = [2]string{name, cmp.Or(around, name)}
			}
			fields[name] = good
			switch good := good.(type) {
			case map[string]any:
				walk(good, cmp.Or(around, name))
			case []any:
				for _, item := range good {
					walk(item.(map[string]any), cmp.Or(around, name))
				}
			}
		}
	}
	walk(whole, "")
	return out
}

// TestWrongTypes gives every field of every call every type but its own.
func TestWrongTypes(t *testing.T) {
	d := newDoor(t)
	for _, s := range life {
		for body, field := range twisted(t, s.body) {
			fault := d.refused("POST", s.path, body)
			if !strings.Contains(fault, field[0]) && !strings.Contains(fault, "field "+field[1]) {
				t.Errorf("%s %s: %q names no field", s.path, body, fault)
			}
		}
		d.take(s)
	}
}

// TestLarge sends bodies at the limit and beyond.
func TestLarge(t *testing.T) {
	d := newDoor(t)
	for _, s := range life {
		for _, over := range []int{1, 100_000, 8 << 20} {
			d.refused("POST", s.path, s.body+strings.Repeat(" ", maxBody-len(s.body)+over), s.path, "larger than 1048576 bytes")
		}
		s.body += strings.Repeat(" ", maxBody-len(s.body))
		d.take(s)
	}
	long := strings.Repeat("x", maxBody-1000)
	for path, body := range map[string]string{
		"/IpamDriver.RequestPool":      `{"AddressSpace":"flannel","Options":{"` + long + `":"y"}}`,
		"/IpamDriver.RequestAddress":   `{"PoolID":"` + long + `"}`,
		"/IpamDriver.ReleaseAddress":   `{"PoolID":"10.5.1.0/24","Address":"` + long + `"}`,
		"/NetworkDriver.CreateNetwork": `{"NetworkID":"` + netID + `","Options":{"com.docker.network.generic":{"k":["` + long + `"]}}}`,
		"/NetworkDriver.Join":          `{"NetworkID":"` + long + `"}`,
	} {
		d.refused("POST", path, body)
		if answer, _ := d.call(t, "POST", path, body); len(answer) > 4*maxError {
			t.Errorf("%s: an error of %d bytes", path, len(answer))
		}
	}
}

// TestTwice makes every call again, and many times at once.
func TestTwice(t *testing.T) {
	d := newDoor(t)
	for _, s := range life {
		var wg sync.WaitGroup
		faults := make([]string, 8)
		for i := range faults {
			wg.Go(func() { _, faults[i] = d.call(t, "POST", s.path, s.body) })
		}
		wg.Wait()
		d.await(t, s.path, func(state string) bool { return strings.Contains(state, s.part) == s.there })
		if s.path == "/IpamDriver.RequestPool" {
			refusals := 0
			for _, fault := range faults {
				if strings.Contains(fault, "handed out") && strings.Contains(fault, "try again in") {
					refusals++
				}
			}
			if refusals != len(faults)-1 {
				t.Errorf("%s at once: %q", s.path, faults)
			}
			d.refused("POST", s.path, s.body, "10.5.1.0/24", "try again in")
			continue
		}
		for _, fault := range faults {
			if fault != "" {
				t.Errorf("%s at once: %s", s.path, fault)
			}
		}
		d.idle(s.path, s.body)
	}
	if state := d.state(t); strings.Contains(state, netID) || strings.Contains(state, "lease 10") || strings.Contains(state, "held") {
		t.Errorf("left behind:\n%s", state)
	}
}
