package plugin

import (
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/docker-flannel/docker-flannel/internal/statefile"
)

// memory is what this host remembers of a Docker network's name. It outlives the
// network: that is how one is known that a person has removed here.
type memory struct {
	ID     string // of the entry that the network is, or was
	Docker string `json:",omitempty"` // the engine's id of the network, empty while it has none
	Making bool   `json:",omitempty"` // the network is being made, if it is not there yet
	Apart  bool   `json:",omitempty"` // the network is this host's alone
}

// savedMemory is the content of the state file.
type savedMemory struct {
	Version  int               `json:"version"`
	Networks map[string]memory `json:"networks"`
}

const memoryVersion = 1

// loadMemory reads what was remembered; without a file it is nothing.
func loadMemory(path string) (map[string]memory, error) {
	all := map[string]memory{}
	var saved savedMemory
	err := statefile.Load(path, &saved)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return all, nil
	case err != nil:
		return nil, err
	case saved.Version != memoryVersion:
		return nil, fmt.Errorf("state file %s: version %d, this program reads version %d; put a good copy in its place, or move it away to begin without it", path, saved.Version, memoryVersion)
	}
	maps.Copy(all, saved.Networks)
	return all, nil
}

// remember puts what is remembered of a name on disk.
func (s *syncer) remember(name string, m *memory) error {
	old, known := s.memory[name]
	switch {
	case m == nil && !known, m != nil && known && old == *m:
		return nil
	case m == nil:
		delete(s.memory, name)
	default:
		s.memory[name] = *m
	}
	err := statefile.Save(s.path, savedMemory{memoryVersion, s.memory})
	if err != nil {
		if delete(s.memory, name); known {
			s.memory[name] = old
		}
	}
	return err
}
