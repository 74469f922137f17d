package plugin

import (
	"cmp"
	"strings"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
)

// found is a Docker network that the engine has.
type found struct {
	blueprint.Network
	ID         string // the engine's
	Driver     string
	Ours       bool // it is in this plugin's books
	Containers int  // that run on it
}

// action is what is to be done about a name.
type action int

const (
	rest    action = iota
	publish        // write the entry, so that the other hosts make the network
	create         // make the network here
	remove         // remove it here
)

// course is what follows from how things are with one name.
type course struct {
	do    action
	entry blueprint.Entry // to write; one without an ID gets a new one
	keep  *memory         // what is remembered from now on, once it is done; nil for nothing
	// why says why a network is left alone, once.
	why string
	// left says that a person has removed the network here.
	left bool
}

// decide says what is to be done about one name: entry is what the hosts share,
// have what the engine has, known what this host remembers; each may be nil.
func decide(entry *blueprint.Entry, have *found, known *memory) course {
	live := entry != nil && !entry.Removed
	switch {
	case have == nil:
		return absent(entry, known)
	case have.Ours && known != nil && (known.Docker == have.ID || known.Making):
		return familiar(entry, *have, *known)
	case have.Ours:
		return arrived(entry, *have)
	case live && !strings.Contains(have.Driver, "flannel"):
		return course{keep: known, why: "its driver is " + cmp.Or(have.Driver, "none") + " here and flannel there"}
	}
	return course{keep: known}
}

// absent is for a name that the engine has no network of.
func absent(entry *blueprint.Entry, known *memory) course {
	if known != nil && (known.Making || known.Apart) {
		known = nil // it did not come about, or was no part of this
	}
	var s course
	if known != nil {
		s.left = known.Docker != "" && entry != nil && !entry.Removed && entry.ID == known.ID
		s.keep = &memory{ID: known.ID}
	}
	if entry == nil || entry.Removed || known != nil && known.ID == entry.ID {
		return s
	}
	return course{do: create, keep: &memory{ID: entry.ID}}
}

// familiar is for a network that this host made, or shares already.
func familiar(entry *blueprint.Entry, have found, known memory) course {
	same := &memory{ID: known.ID, Docker: have.ID, Apart: known.Apart}
	switch {
	case entry == nil && known.Apart:
		return course{keep: same}
	case entry == nil: // lost by the store: nobody removed it
		return course{do: publish, entry: blueprint.Entry{Network: have.Network, ID: known.ID}, keep: same}
	case entry.Removed && known.Apart:
		return course{keep: same}
	case entry.Removed && entry.ID == known.ID:
		return course{do: remove, keep: &memory{ID: known.ID}}
	case entry.Removed:
		return course{keep: &memory{Docker: have.ID, Apart: true}, why: "another network of this name was removed everywhere while this host did not hear of it"}
	}
	return share(*entry, have)
}

// arrived is for a network that a person has made here.
func arrived(entry *blueprint.Entry, have found) course {
	if entry != nil && !entry.Removed {
		return share(*entry, have)
	}
	fresh := blueprint.Entry{Network: have.Network}
	if entry != nil {
		fresh.Revision = entry.Revision
	}
	return course{do: publish, entry: fresh, keep: &memory{Docker: have.ID}}
}

// share takes a network for the one that all hosts have, if it is the same.
func share(entry blueprint.Entry, have found) course {
	if why := blueprint.Differs(have.Network, entry.Network); why != "" {
		return course{keep: &memory{Docker: have.ID, Apart: true}, why: why}
	}
	return course{keep: &memory{ID: entry.ID, Docker: have.ID}}
}
