// Package statefile keeps one JSON value in one file so that a crash or a power
// loss leaves either the old value or the new one, never a mixture.
package statefile

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// leftover is what the name of a half-written file ends in. It is the same at
// every save, so whatever an interrupted one left is overwritten by the next.
const leftover = ".tmp"

// Load reads the value that Save wrote to path. Without a file the error is
// os.ErrNotExist; a file that does not hold such a value stays as it is, and the
// error names it and says what to do. After an error into may be half filled.
func Load(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("load state: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("state file %s cannot be read: %w; put a good copy in its place, or move it away to begin without it", path, err)
	}
	return nil
}

// Save replaces the content of path with v as JSON, mode 0600, and returns once
// it is on disk. After an error path holds the old value whole, or, where only
// the folder could not be synced, perhaps the new one. Callers with the same
// path take turns; Writer arranges that.
func Save(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	temp := path + leftover
	if err := write(temp, append(text, '\n')); err != nil {
		_ = os.Remove(temp) // the first error is the one that counts
		return fmt.Errorf("save %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("save %s: %w", path, err)
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

// write makes path hold text on disk, whatever was there before.
func write(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // after an error; a second close does nothing
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// syncFolder puts a rename inside the folder on disk.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
