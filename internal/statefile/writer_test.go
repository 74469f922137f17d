package statefile

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// gate is a snapshot that counts the saves and lets the test hold them up.
type gate struct {
	saves atomic.Int32
	open  chan struct{}
}

func (g *gate) snapshot() any {
	n := g.saves.Add(1)
	<-g.open
	return n
}

// However many callers come while a save is under way, one save answers them.
func TestWriterShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		w := NewWriter(filepath.Join(t.TempDir(), "state.json"), g.snapshot)
		var answered atomic.Int32
		commit := func() {
			if err := w.Commit(); err != nil {
				t.Error(err)
			}
			answered.Add(1)
		}
		go commit()
		synctest.Wait()
		for range 50 {
			go commit()
		}
		synctest.Wait()
		if n := answered.Load(); n != 0 {
			t.Errorf("%d callers were answered before anything was on disk", n)
		}
		close(g.open)
		synctest.Wait()
		if saves, n := g.saves.Load(), answered.Load(); saves != 2 || n != 51 {
			t.Errorf("%d saves answered %d callers, want 2 and 51", saves, n)
		}
	})
}

// A caller returns as soon as its own save is done, however many come later.
func TestWriterHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		w := NewWriter(filepath.Join(t.TempDir(), "state.json"), g.snapshot)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- w.Commit() }()
		synctest.Wait()
		go func() { second <- w.Commit() }()
		synctest.Wait()
		g.open <- struct{}{}
		synctest.Wait()
		select {
		case err := <-first:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("the first caller waits for the second's save")
		}
		select {
		case <-second:
			t.Error("the second caller was answered by the first's save")
		default:
		}
		close(g.open)
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

// What a caller changed before Commit is on disk afterwards, for every caller.
func TestWriterSavesEveryChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	var mu sync.Mutex
	state := map[int]bool{}
	w := NewWriter(path, func() any {
		mu.Lock()
		defer mu.Unlock()
		out := map[int]bool{}
		for k := range state {
			out[k] = true
		}
		return out
	})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			mu.Lock()
			state[i] = true
			mu.Unlock()
			if err := w.Commit(); err != nil {
				t.Error(err)
			}
			got := map[int]bool{}
			if err := Load(path, &got); err != nil || !got[i] {
				t.Errorf("%d is not on disk: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// Everyone whose change a failed save would have held learns of it; the next
// save is tried afresh.
func TestWriterError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	w := NewWriter(path, func() any { return "value" })
	if err := os.MkdirAll(filepath.Join(path+leftover, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err == nil {
		t.Error("no error though nothing could be saved")
	}
	if err := os.RemoveAll(path + leftover); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Error(err)
	}
}
