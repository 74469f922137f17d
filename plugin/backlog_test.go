package plugin

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/logbuf"
)

// TestBacklog has a log's reader pause: nobody who logs waits, what there is room for
// arrives in order, and the rest is counted.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		b := NewBacklog(writer)
		defer close(b.lines)
		log, _ := NewLog(b, b)
		const more = 7
		log.Info("line", "n", 0)
		synctest.Wait() // until the writer has taken it, and waits
		for i := range backlogSize + more {
			log.Info("line", "n", 1+i)
		}
		var got logbuf.Buffer
		read := make(chan error, 1)
		go func() {
			_, err := io.Copy(&got, reader)
			read <- err
		}()
		b.Drain(10 * time.Second)
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(got.String()), "\n")
		said := fmt.Sprintf("level=WARN msg=%q count=%d", "lines of this log were lost: the engine did not read them in time", more)
		if len(lines) != backlogSize+2 || lines[1] != said {
			t.Fatalf("%d lines, the second %q", len(lines), lines[1])
		}
		for i, line := range append(lines[:1], lines[2:]...) {
			if want := fmt.Sprintf("level=INFO msg=line n=%d", i); line != want {
				t.Fatalf("line %d is %q", i, line)
			}
		}
	})
}

// TestBacklogDrain: a process does not end later because nobody reads its log.
func TestBacklogDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		b := NewBacklog(writer)
		drain := func(lines int, want time.Duration) {
			for range lines {
				_, _ = b.Write([]byte("x\n"))
				synctest.Wait() // until the writer has taken what it can
			}
			began := time.Now()
			if b.Drain(time.Second); time.Since(began) != want {
				t.Errorf("after %d more lines: gave up after %s, want %s", lines, time.Since(began), want)
			}
		}
		drain(0, 0)
		drain(2, time.Second)           // its wish waits behind them
		drain(backlogSize, time.Second) // it has no room
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
		b.Drain(time.Second)
		close(b.lines)
	})
}
