package plugin

import (
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
)

func TestDecide(t *testing.T) {
	plain := blueprint.Network{Name: "blue"}
	other := blueprint.Network{Name: "blue", Internal: true}
	entry := func(id string, removed bool) *blueprint.Entry {
		return &blueprint.Entry{Network: plain, ID: id, Removed: removed, Revision: 7}
	}
	live, gone := entry("A", false), entry("A", true)
	have := &found{Network: plain, ID: "d1", Driver: "flannel", Ours: true}
	differing := &found{Network: other, ID: "d1", Driver: "flannel", Ours: true}
	bridge := &found{Network: plain, ID: "d1", Driver: "bridge"}
	unheard := &found{Network: plain, ID: "d1", Driver: "flannel"}
	member := &memory{ID: "A", Docker: "d1"}
	left := &memory{ID: "A"}
	apart := &memory{Docker: "d1", Apart: true}
	making := &memory{ID: "A", Making: true}
	for _, c := range []struct {
		name  string
		entry *blueprint.Entry
		have  *found
		known *memory
		do    action
		keep  *memory
		why   string
		left  bool
	}{
		{"nothing anywhere", nil, nil, nil, rest, nil, "", false},
		{"a person made it here", nil, have, nil, publish, &memory{Docker: "d1"}, "", false},
		{"made on another host", live, nil, nil, create, left, "", false},
		{"made, and all is well", live, have, member, rest, member, "", false},
		{"made by both at once", live, have, nil, rest, member, "", false},
		{"the plugin ended while it was made", live, have, making, rest, member, "", false},
		{"the plugin ended before it was made", live, nil, making, create, left, "", false},
		{"removed everywhere before it was made", gone, nil, making, rest, nil, "", false},
		{"the plugin ended while it was made, and it was removed everywhere", gone, have, making, remove, left, "", false},
		{"removed here", live, nil, member, rest, left, "", true},
		{"removed here before", live, nil, left, rest, left, "", false},
		{"removed here, another one made there", entry("B", false), nil, left, create, &memory{ID: "B"}, "", false},
		{"removed here, then made again here", live, have, left, rest, member, "", false},
		{"removed everywhere", gone, have, member, remove, left, "", false},
		{"removed everywhere, and here already", gone, nil, member, rest, left, "", false},
		{"removed everywhere, then made again here", gone, have, left, publish, &memory{Docker: "d1"}, "", false},
		{"removed everywhere, and again elsewhere the same", entry("B", false), have, member, rest, &memory{ID: "B", Docker: "d1"}, "", false},
		{"another one was removed everywhere", entry("B", true), have, member, rest, apart, "did not hear", false},
		{"etcd wiped", nil, have, member, publish, member, "", false},
		{"etcd wiped, removed here", nil, nil, left, rest, left, "", false},
		{"etcd wiped, removed here a moment ago", nil, nil, member, rest, left, "", false},
		{"etcd wiped, apart", nil, have, apart, rest, apart, "", false},
		{"other options", live, differing, nil, rest, apart, "--internal is true here", false},
		{"other options, said before", live, differing, apart, rest, apart, "--internal is true here", false},
		{"other options than after a wipe", live, differing, member, rest, apart, "--internal is true here", false},
		{"no longer other options", live, have, apart, rest, member, "", false},
		{"apart, and the others' removed", gone, differing, apart, rest, apart, "", false},
		{"apart, and removed", live, nil, apart, create, left, "", false},
		{"apart, and removed, and no other", nil, nil, apart, rest, nil, "", false},
		{"another driver's", live, bridge, nil, rest, nil, "driver is bridge", false},
		{"another driver's, and nothing shared", nil, bridge, nil, rest, nil, "", false},
		{"not in the books yet", live, unheard, nil, rest, nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(c.entry, c.have, c.known)
			if got.do != c.do || got.left != c.left || (got.why == "") != (c.why == "") || !strings.Contains(got.why, c.why) {
				t.Errorf("%+v", got)
			}
			if (got.keep == nil) != (c.keep == nil) || got.keep != nil && *got.keep != *c.keep {
				t.Errorf("keeps %+v, want %+v", got.keep, c.keep)
			}
			if got.do != publish {
				return
			}
			want := blueprint.Entry{Network: plain}
			if c.entry != nil {
				want.Revision = c.entry.Revision
			} else if c.known != nil {
				want.ID = c.known.ID
			}
			if blueprint.Differs(got.entry.Network, plain) != "" || got.entry.ID != want.ID || got.entry.Revision != want.Revision || got.entry.Removed {
				t.Errorf("publishes %+v, want %+v", got.entry, want)
			}
		})
	}
}
