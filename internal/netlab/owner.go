package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const ownersDir = "/run/netlab"

// owner is the note a lab keeps of what it will leave behind: its folder and
// its cgroups, beside the network namespaces that bear its id. The note's lock
// lasts as long as the lab's process, however that ends.
type owner struct {
	id     string
	note   *os.File
	dir    string
	groups []string
}

func register(id, dir string) (*owner, error) {
	groups, err := labCgroups(id)
	if err != nil {
		return nil, fmt.Errorf("register lab %s: %w", id, err)
	}
	o := &owner{id: id, dir: dir, groups: groups}
	if err := o.write(); err != nil {
		return nil, fmt.Errorf("register lab %s: %w", id, err)
	}
	return o, nil
}

// write makes the note appear under its name with the lock already held.
func (o *owner) write() error {
	if err := os.MkdirAll(ownersDir, 0o755); err != nil {
		return err
	}
	note, err := os.CreateTemp(ownersDir, ".new-")
	if err != nil {
		return err
	}
	o.note = note
	lines := append([]string{o.dir}, o.groups...)
	_, err = io.WriteString(note, strings.Join(lines, "\n")+"\n")
	err = errors.Join(err, unix.Flock(int(note.Fd()), unix.LOCK_EX))
	if err == nil {
		err = os.Rename(note.Name(), o.path())
	}
	if err != nil {
		err = errors.Join(err, os.Remove(note.Name()), note.Close())
	}
	return err
}

func (o *owner) path() string { return filepath.Join(ownersDir, o.id) }

// clean removes all that the lab has outside its process.
func (o *owner) clean() error {
	var failed error
	spaces, err := filepath.Glob(filepath.Join(netnsDir, o.id+"-*"))
	if err != nil {
		return err
	}
	for _, path := range spaces {
		failed = errors.Join(failed, killIn(path), removeNetns(path))
	}
	failed = errors.Join(failed, removeCgroups(o.groups), os.RemoveAll(o.dir))
	if failed != nil {
		return fmt.Errorf("clean up lab %s: %w", o.id, errors.Join(failed, o.note.Close()))
	}
	return errors.Join(os.Remove(o.path()), o.note.Close())
}

// Sweep removes what labs have left whose processes are gone.
func Sweep() error {
	notes, err := filepath.Glob(filepath.Join(ownersDir, "netlab-*"))
	if err != nil {
		return err
	}
	var failed error
	for _, path := range notes {
		o, err := orphan(path)
		if err == nil && o != nil {
			err = o.clean()
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// orphan reads the note of a dead lab; nil when its lab lives or has just been
// cleaned up.
func orphan(path string) (*owner, error) {
	note, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	o, err := readNote(note)
	if o == nil {
		note.Close()
	}
	return o, err
}

func readNote(note *os.File) (*owner, error) {
	err := unix.Flock(int(note.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", note.Name(), err)
	}
	if !stillNamed(note) {
		return nil, nil
	}
	var lines []string
	scan := bufio.NewScanner(note)
	for scan.Scan() {
		lines = append(lines, scan.Text())
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", note.Name(), err)
	}
	if len(lines) == 0 || !filepath.IsAbs(lines[0]) {
		return nil, fmt.Errorf("%s names no lab folder: remove it by hand", note.Name())
	}
	return &owner{id: filepath.Base(note.Name()), note: note, dir: lines[0], groups: lines[1:]}, nil
}

func stillNamed(file *os.File) bool {
	held, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(file.Name())
	return err == nil && os.SameFile(held, named)
}

// killIn ends every process of a network namespace of the lab's and waits
// until they are gone.
func killIn(path string) error {
	space, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = poll(30*time.Second, func() bool {
		pids := pidsIn(space)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return len(pids) == 0
	})
	if err != nil {
		return fmt.Errorf("processes in %s outlive a kill: %w", path, err)
	}
	return nil
}

// pidsIn lists the processes of a network namespace, without our own.
func pidsIn(space os.FileInfo) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	var pids []int
	for _, link := range links {
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/", &pid); err != nil || pid == os.Getpid() {
			continue
		}
		if at, err := os.Stat(link); err == nil && os.SameFile(at, space) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// poll asks until it is told yes, first at once and then every few
// milliseconds.
func poll(limit time.Duration, yes func() bool) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("waited %s", limit))
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
