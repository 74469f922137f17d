package ipam

import (
	"encoding/json"
	"strings"
	"testing"
)

// again saves and restores an allocator, and wants both the same.
func again(t testing.TB, a *Allocator) *Allocator {
	t.Helper()
	text, err := json.Marshal(a.State())
	if err != nil {
		t.Fatal(err)
	}
	var s State
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	b, err := Restore(s)
	if err != nil {
		t.Fatalf("restore %s: %v", text, err)
	}
	if second, err := json.Marshal(b.State()); err != nil || string(second) != string(text) {
		t.Fatalf("restored\n%s\ninto\n%s (%v)", text, second, err)
	}
	return b
}

func TestStateText(t *testing.T) {
	a := newAllocator(t, "10.5.7.0/24")
	for _, s := range []step{
		{call: "take", owner: "02:00:00:00:00:01"}, {call: "take"}, {call: "exact", arg: "10.5.7.9"},
		{call: "release", arg: "10.5.7.2"}, {call: "release", arg: "10.5.7.9"},
	} {
		s.run(a)
	}
	text, err := json.Marshal(a.State())
	want := `{"subnet":"10.5.7.0/24","next":"10.5.7.4","held":[{"addr":"10.5.7.3"}],` +
		`"resting":[{"addr":"10.5.7.2","owner":"02:00:00:00:00:01"},{"addr":"10.5.7.9"}]}`
	if err != nil || string(text) != want {
		t.Errorf("got  %s (%v)\nwant %s", text, err, want)
	}
	again(t, a)
}

func TestRestoreErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "not an IPv4 subnet",
		`{"subnet":"10.5.7.9/24","next":"10.5.7.2"}`:                                                              "not an IPv4 subnet",
		`{"subnet":"10.5.7.0/24"}`:                                                                                "next address",
		`{"subnet":"10.5.7.0/24","next":"10.5.7.1"}`:                                                              "next address: address 10.5.7.1: reserved",
		`{"subnet":"10.5.7.0/24","next":"10.5.8.2"}`:                                                              "next address: address 10.5.8.2: outside",
		`{"subnet":"10.5.7.0/24","next":"10.5.7.2","held":[{"addr":"10.5.7.255"}]}`:                               "held address: address 10.5.7.255: reserved",
		`{"subnet":"10.5.7.0/24","next":"10.5.7.2","held":[{"addr":"::ffff:10.5.7.9"}]}`:                          "held address: address ::ffff:10.5.7.9: outside",
		`{"subnet":"10.5.7.0/24","next":"10.5.7.2","held":[{"addr":"10.5.7.9"},{"addr":"10.5.7.9"}]}`:             "held address: address 10.5.7.9: listed twice",
		`{"subnet":"10.5.7.0/24","next":"10.5.7.2","held":[{}]}`:                                                  "held address",
		`{"subnet":"10.5.7.0/24","next":"10.5.7.2","resting":[{"addr":"10.5.7.0"}]}`:                              "resting address: address 10.5.7.0: reserved",
		`{"subnet":"10.5.0.0/16","next":"10.5.7.2","held":[{"addr":"10.5.7.9"}],"resting":[{"addr":"10.5.7.9"}]}`: "resting address: address 10.5.7.9: listed twice",
	} {
		var s State
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	s := newAllocator(t, "10.5.0.0/16").State()
	s.Resting = make([]Holding, memory+1)
	if _, err := Restore(s); err == nil || !strings.Contains(err.Error(), "1025 resting addresses") {
		t.Errorf("too many resting: got %v", err)
	}
}

// FuzzRestore wants that no text makes Restore panic, and that whatever it
// accepts hands out every address once and never a reserved one.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"subnet":"10.5.7.0/24","next":"10.5.7.4","held":[{"addr":"10.5.7.3"}],"resting":[{"addr":"10.5.7.2","owner":"a"}]}`))
	f.Add([]byte(`{"subnet":"10.5.7.0/30","next":"10.5.7.2","held":[{"addr":"10.5.7.2","owner":"a"}]}`))
	f.Add([]byte(`{"subnet":"10.0.0.0/8","next":"10.255.255.254","held":[{"addr":"10.0.0.1"}]}`))
	f.Add([]byte(`{"subnet":"255.255.255.248/29","next":"255.255.255.254"}`))
	f.Add([]byte(`{"subnet":"0.0.0.0/8","next":"0.0.0.2","resting":[{"addr":"::"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s State
		if json.Unmarshal(text, &s) != nil {
			return
		}
		a, err := Restore(s)
		if err != nil {
			return
		}
		again(t, a)
		held := map[string]bool{}
		for _, h := range a.Held() {
			held[h.Addr.String()] = true
		}
		for range min(a.Free(), 300) {
			got, fresh, err := a.Take("")
			if err != nil || !fresh || held[got.String()] || a.check(got) != nil {
				t.Fatalf("%s after %s: %t, %v, %v", got, text, fresh, err, a.check(got))
			}
			held[got.String()] = true
		}
		again(t, a)
	})
}
