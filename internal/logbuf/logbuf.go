// Package logbuf holds what tests have logged, from any goroutine.
package logbuf

import (
	"bytes"
	"sync"
	"time"
)

// Buffer collects what is written. The zero value is empty.
type Buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed by the next Write, nil while nobody waits
}

// Write appends p.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.b.Write(p)
}

// String is all that was written so far.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Await returns when text has been written, or false after a time without it.
func (l *Buffer) Await(text string, limit time.Duration) bool {
	late := time.After(limit)
	for {
		l.mu.Lock()
		if bytes.Contains(l.b.Bytes(), []byte(text)) {
			l.mu.Unlock()
			return true
		}
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-late:
			return false
		}
	}
}
