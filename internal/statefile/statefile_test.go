package statefile

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type value struct {
	Name  string
	Count int
}

func TestSaveLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, want := range []value{{"first", 1}, {strings.Repeat("long", 5000), 2}, {"short", 3}} {
		if err := Save(path, want); err != nil {
			t.Fatal(err)
		}
		var got value
		if err := Load(path, &got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %.40v, want %.40v", got, want)
		}
		checkFolder(t, path)
	}
}

// checkFolder wants nothing beside the state file, and that with mode 0600.
func checkFolder(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("left behind: %s", e.Name())
		}
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v (%v), want 0600", e.Name(), info.Mode(), err)
		}
	}
}

func TestLoadAbsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := Load(path, &value{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want os.ErrNotExist naming %s", err, path)
	}
}

func TestLoadCorrupt(t *testing.T) {
	for name, text := range map[string]string{
		"empty":     "",
		"cut short": `{"Name":"fi`,
		"zeros":     "\x00\x00\x00\x00",
		"two":       `{"Name":"a"}{"Name":"b"}`,
		"type":      `{"Name":7}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := Load(path, &value{})
			if err == nil || errors.Is(err, os.ErrNotExist) {
				t.Fatalf("got %v, want an error of its own", err)
			}
			for _, part := range []string{path, "move it away"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if left, err := os.ReadFile(path); err != nil || string(left) != text {
				t.Errorf("the corrupt file was changed: %q, %v", left, err)
			}
		})
	}
}

// An interrupted save leaves a temporary file: it must not be read, not be in
// the way of the next save, and not outlive it.
func TestInterruptedSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	half := []byte(`{"Name":"newer and much longer than`)
	if err := os.WriteFile(path+leftover, half, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, &value{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist", err)
	}
	if err := Save(path, value{"a", 1}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+leftover, half, 0o666); err != nil {
		t.Fatal(err)
	}
	var got value
	if err := Load(path, &got); err != nil || got.Name != "a" {
		t.Errorf("got %v, %v, want the value of the last whole save", got, err)
	}
	if err := Save(path, value{"b", 2}); err != nil {
		t.Fatal(err)
	}
	checkFolder(t, path)
}

// A save that cannot be done leaves the old value and says which file.
func TestSaveErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	old := value{"old", 1}
	if err := Save(path, old); err != nil {
		t.Fatal(err)
	}
	if err := Save(path, math.NaN()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("value that is no JSON: got %v", err)
	}
	blocked := filepath.Join(path+leftover, "in the way")
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Save(path, value{"new", 2}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("temporary file that cannot be made: got %v", err)
	}
	var got value
	if err := Load(path, &got); err != nil || got != old {
		t.Errorf("got %v, %v, want %v", got, err, old)
	}
	if err := Save(filepath.Join(t.TempDir(), "none", "state.json"), old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder that is not there: got %v", err)
	}
}

// FuzzLoad wants that whatever can be read is the same once it is saved.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{`{"Name":"a","Count":1}`, `null`, ``, `{"Name":"fi`, `{"name":"\ud800"}`, "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got, again value
		if err := Load(path, &got); err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Error(err)
			}
			return
		}
		if err := Save(path, got); err != nil {
			t.Fatal(err)
		}
		if err := Load(path, &again); err != nil || again != got {
			t.Errorf("%q is %+v and then %+v: %v", text, got, again, err)
		}
	})
}
