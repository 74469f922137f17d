package statefile

import "sync"

// Writer saves the latest snapshot of one value to one file. Callers that come
// while a save is under way share the next one, so a burst of changes costs
// few writes while each caller still waits for its own, and only for that.
type Writer struct {
	path     string
	snapshot func() any
	turn     chan struct{} // filled while a save is under way

	mu   sync.Mutex
	open *batch // the callers that the next save answers
}

// batch is the set of callers that one save answers.
type batch struct {
	done chan struct{} // closed once err is final
	err  error
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// NewWriter makes a Writer; snapshot is called without any lock of the Writer
// held and must return a value that nobody changes afterwards.
func NewWriter(path string, snapshot func() any) *Writer {
	return &Writer{path: path, snapshot: snapshot, turn: make(chan struct{}, 1), open: newBatch()}
}

// Path is the file's path.
func (w *Writer) Path() string { return w.path }

// Commit returns once a snapshot taken after the call began is on disk. Its
// error is Save's, the same for every caller that shared the save.
func (w *Writer) Commit() error {
	w.mu.Lock()
	mine := w.open
	w.mu.Unlock()
	select {
	case <-mine.done:
	case w.turn <- struct{}{}:
		w.save(mine)
		<-w.turn
	}
	return mine.err
}

// save answers the batch unless somebody did it already; the caller holds the
// turn.
func (w *Writer) save(b *batch) {
	w.mu.Lock()
	if w.open != b {
		w.mu.Unlock()
		return
	}
	w.open = newBatch()
	w.mu.Unlock()
	b.err = Save(w.path, w.snapshot())
	close(b.done)
}
