package plugin

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/docker-flannel/docker-flannel/internal/blueprint"
	"github.com/docker-flannel/docker-flannel/internal/report"
)

// lookEvery is the time between two looks at the engine without an event.
const lookEvery = 15 * time.Second

// sharer is what the hosts share of their Docker networks.
type sharer interface {
	// WatchDocker calls emit with all entries at the start and after every
	// change, until ctx ends.
	WatchDocker(ctx context.Context, emit func([]blueprint.Entry)) error
	// Publish writes an entry if it is still held at its revision, and tells
	// whether it did.
	Publish(ctx context.Context, e blueprint.Entry) (bool, error)
	// Note keeps for ttl how a host stands to a Docker network.
	Note(ctx context.Context, name string, host netip.Addr, p blueprint.Presence, ttl time.Duration) error
	// Leave notes that a host has removed an entry's Docker network; with the
	// last host goes the entry.
	Leave(ctx context.Context, e blueprint.Entry, host netip.Addr) error
}

// networks is what the sync asks of the engine that runs this plugin.
type networks interface {
	Recognise(ctx context.Context) error
	List(ctx context.Context, books func() report.Host) ([]found, error)
	Make(ctx context.Context, n blueprint.Network) (id string, err error)
	Remove(ctx context.Context, id string) error
	// Changes calls changed at its start and after every change, until the
	// engine ends the connection.
	Changes(ctx context.Context, changed func()) error
}

// syncer makes the Docker networks of other hosts here, and shares those of this
// one. It is no part of any call: an engine that waits for the plugin answers
// nobody.
type syncer struct {
	engine networks
	shared sharer
	host   func() report.Host
	path   string        // of the state file
	ttl    time.Duration // of the notes that containers use a network
	log    *slog.Logger
	wake   chan struct{}

	memory  map[string]memory             // by Docker's name; on disk before it is acted upon
	ours    bool                          // the engine is the one that runs this plugin
	strange time.Time                     // since when that is not so, as far as was asked
	said    map[string]string             // what was logged last, by what it is about
	noted   map[string]time.Time          // when how this host stands to a network was noted last
	stands  map[string]blueprint.Presence // and how
	addr    netip.Addr                    // of the notes

	mu      sync.Mutex
	entries map[string]blueprint.Entry // nil before the store has answered
	read    int                        // how often it has
	seen    int                        // the reading that the notes were checked after
}

// newSyncer loads what this host remembers.
func newSyncer(path string, log *slog.Logger) (*syncer, error) {
	known, err := loadMemory(path)
	if err != nil {
		return nil, fmt.Errorf("load the shared Docker networks: %w", err)
	}
	return &syncer{
		path: path, log: log, wake: make(chan struct{}, 1), memory: known,
		said: map[string]string{}, noted: map[string]time.Time{}, stands: map[string]blueprint.Presence{},
	}, nil
}

// run syncs until ctx ends.
func (s *syncer) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.shared.WatchDocker(ctx, s.learn) })
	g.Go(func() error { return s.listen(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-s.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			s.round(ctx)
		}
	})
	return g.Wait()
}

func (s *syncer) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// learn takes over what the store holds.
func (s *syncer) learn(all []blueprint.Entry) {
	s.mu.Lock()
	s.entries = map[string]blueprint.Entry{}
	for _, e := range all {
		s.entries[e.Name] = e
	}
	s.read++
	s.mu.Unlock()
	s.nudge()
}

// listen wakes the sync when the engine's networks change. An engine that starts
// or stops ends the connection, or has none to offer.
func (s *syncer) listen(ctx context.Context) error {
	pause := time.NewTicker(again)
	defer pause.Stop()
	for {
		err := s.engine.Changes(ctx, s.nudge)
		s.log.Debug("the engine's events ended", "error", err)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// round looks at the engine once and does what follows.
func (s *syncer) round(ctx context.Context) {
	s.mu.Lock()
	entries, read := s.entries, s.read
	s.mu.Unlock()
	if entries == nil {
		return
	}
	if !s.ours && !s.recognised(ctx) {
		return
	}
	list, err := s.engine.List(ctx, s.host)
	if err != nil {
		s.log.Debug("the engine does not list its networks", "error", err)
		return
	}
	have := map[string]found{}
	for _, f := range list {
		if known, twice := have[f.Name]; !twice || !known.Ours {
			have[f.Name] = f
		}
	}
	for _, name := range names(entries, have, s.memory) {
		err := s.settle(ctx, name, entries, have)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.say("act "+name, entries[name].ID, "a shared Docker network is not as it should be, trying on", "network", name, "error", err)
		} else {
			delete(s.said, "act "+name)
		}
	}
	if read != s.seen { // the store may have lost the notes
		clear(s.noted)
		s.seen = read
	}
	s.note(ctx, have)
}

// recognised tells whether the engine is the one that runs this plugin. One that
// is starting answers a while after it has started its plugins.
func (s *syncer) recognised(ctx context.Context) bool {
	err := s.engine.Recognise(ctx)
	if s.ours = err == nil; s.ours {
		return true
	}
	if s.strange.IsZero() {
		s.strange = time.Now()
	}
	if time.Since(s.strange) >= lookEvery {
		s.say("engine", err.Error(), "no Docker network is shared with the other hosts", "error", err)
	}
	return false
}

// names are all that anything is known of, in order.
func names(entries map[string]blueprint.Entry, have map[string]found, known map[string]memory) []string {
	all := map[string]bool{}
	for name := range entries {
		all[name] = true
	}
	for name := range have {
		all[name] = true
	}
	for name := range known {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// settle does what is to be done about one name.
func (s *syncer) settle(ctx context.Context, name string, entries map[string]blueprint.Entry, have map[string]found) error {
	entry, here, known := pointer(entries, name), pointer(have, name), pointer(s.memory, name)
	next := decide(entry, here, known)
	switch next.do {
	case rest:
	case publish:
		if next.entry.ID == "" {
			next.entry.ID = rand.Text()
		}
		next.keep.ID = next.entry.ID
		done, err := s.shared.Publish(ctx, next.entry)
		if err != nil || !done { // another was faster, and is heard of next
			return err
		}
		s.log.Info("this Docker network is shared with the other hosts", "network", name, "flannel", report.Title(next.entry.Flannel))
	case create:
		if err := s.remember(name, &memory{ID: entry.ID, Making: true}); err != nil {
			return err
		}
		id, err := s.engine.Make(ctx, entry.Network)
		if err != nil {
			return fmt.Errorf("make the Docker network %s of other hosts here: %w", name, err)
		}
		next.keep.Docker = id
		s.log.Info("a Docker network of other hosts was made here", "network", name, "flannel", report.Title(entry.Flannel))
	case remove:
		if err := s.engine.Remove(ctx, here.ID); err != nil {
			return fmt.Errorf("remove the Docker network %s here, which was removed everywhere: %w", name, err)
		}
		s.log.Info("a Docker network that was removed everywhere was removed here", "network", name)
	}
	if next.left {
		if err := s.shared.Leave(ctx, *entry, s.host().PublicIP); err != nil {
			return err
		}
	}
	if err := s.remember(name, next.keep); err != nil {
		return err
	}
	switch {
	case next.left:
		s.log.Info("a Docker network was removed on this host and stays on the others; docker network create makes it here again, flannel network rm removes it everywhere", "network", name)
	case next.why != "":
		s.say("apart "+name, next.why, "this host's Docker network is not the one of the same name that the other hosts share, and is left alone; docker network rm here makes room for theirs, and flannel network rm removes theirs",
			"network", name, "difference", next.why)
	}
	return nil
}

func pointer[T any](all map[string]T, name string) *T {
	if one, found := all[name]; found {
		return &one
	}
	return nil
}

// say warns of something, and not again until it changes.
func (s *syncer) say(about, what, text string, args ...any) {
	if last, said := s.said[about]; said && last == what {
		return
	}
	s.said[about] = what
	s.log.Warn(text, args...)
}
