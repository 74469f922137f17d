package plugin

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// backlogSize is how many lines of the log wait for a reader.
const backlogSize = 4096

// Backlog writes lines to a pipe whose reader may pause: who logs never waits for
// it. The lines that find no room are lost, and their number is said once the
// reader is back.
type Backlog struct {
	to    io.Writer
	lines chan entry
	lost  atomic.Int64
}

// entry is one line, or the wish to know that all before it are written.
type entry struct {
	line []byte
	done chan struct{}
}

// NewBacklog begins to write what comes to a writer.
func NewBacklog(to io.Writer) *Backlog {
	b := &Backlog{to: to, lines: make(chan entry, backlogSize)}
	go b.run()
	return b
}

// Write takes one line, as slog's handlers write them. It returns no error: a log
// that cannot be written has nowhere to say so.
func (b *Backlog) Write(line []byte) (int, error) {
	select {
	case b.lines <- entry{line: append([]byte(nil), line...)}:
	default:
		b.lost.Add(1)
	}
	return len(line), nil
}

// Drain drains all, at the same time.
func Drain(patience time.Duration, all ...*Backlog) {
	var each sync.WaitGroup
	for _, b := range all {
		each.Go(func() { b.Drain(patience) })
	}
	each.Wait()
}

// Drain returns when all that was written before the call has reached the reader,
// or after the given time.
func (b *Backlog) Drain(patience time.Duration) {
	late := time.NewTimer(patience)
	defer late.Stop()
	done := make(chan struct{})
	select {
	case b.lines <- entry{done: done}:
	case <-late.C:
		return
	}
	select {
	case <-done:
	case <-late.C:
	}
}

// run writes for as long as the process lives.
func (b *Backlog) run() {
	own := slog.New(slog.NewTextHandler(b.to, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	for e := range b.lines {
		if e.done != nil {
			close(e.done)
			continue
		}
		_, _ = b.to.Write(e.line)
		if lost := b.lost.Swap(0); lost > 0 {
			own.Warn("lines of this log were lost: the engine did not read them in time", "count", lost)
		}
	}
}
