package netlab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// space is where a process runs: a network namespace, or by its pidfd the
// namespaces of a host's first process.
type space struct {
	file  *os.File
	flags int
}

const hostSpace = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

func (s space) enter() error {
	if s.flags&unix.CLONE_NEWNS != 0 {
		// A thread that shares its root with others may not change mounts.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
	}
	return setns(s.file, s.flags)
}

// job is one command line to run in a space.
type job struct {
	space   space
	argv    []string
	title   string // in errors, instead of argv
	env     []string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	sys     unix.SysProcAttr
	files   []*os.File
	cgroups []string
}

// Proc is a process that runs on while the test does other things.
type Proc struct {
	line   string
	log    string
	cancel context.CancelFunc
	cmd    *exec.Cmd
	done   chan struct{}
	err    error
}

func (j *job) command(ctx context.Context) *exec.Cmd {
	argv := append([]string{"/usr/bin/env", "--"}, j.argv...)
	if len(j.cgroups) > 0 {
		const move = `for c in $LAB_CGROUPS; do echo 0 >"$c/cgroup.procs"; done; unset LAB_CGROUPS; exec "$@"`
		argv = append([]string{"/bin/sh", "-c", move, "sh"}, j.argv...)
		j.env = append(j.env, "LAB_CGROUPS="+strings.Join(j.cgroups, " "))
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = j.env, j.stdin, j.stdout, j.stderr
	cmd.ExtraFiles = j.files
	cmd.SysProcAttr = &j.sys
	cmd.SysProcAttr.Setpgid = true
	if j.space.flags&unix.CLONE_NEWPID == 0 {
		// Inside a host this would compare the wrong parents and kill the
		// child; there the host's first process takes it along.
		cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	}
	cmd.Cancel = func() error {
		err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		if errors.Is(err, unix.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// start runs the job and returns once it is started. The thread that started
// it waits for it: a parent death signal follows the thread.
func (l *Lab) start(ctx context.Context, j job) (*Proc, error) {
	p := &Proc{line: cmp.Or(j.title, strings.Join(j.argv, " ")), done: make(chan struct{})}
	ctx, p.cancel = context.WithCancel(ctx)
	if err := l.adopt(p); err != nil {
		p.cancel()
		return nil, fmt.Errorf("%s: %w", p.line, err)
	}
	started := make(chan error, 1)
	work := func() error {
		defer p.cancel()
		defer l.forget(p)
		defer close(p.done)
		err := j.space.enter()
		if err == nil {
			p.cmd = j.command(ctx)
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
		return nil
	}
	go func() { _ = onThread(work) }() // what it says comes by started and Wait
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", p.line, err)
	}
	return p, nil
}

// run runs the job to its end and returns its standard output without the
// last newlines.
func (l *Lab) run(ctx context.Context, j job) (string, error) {
	var stdout, stderr bytes.Buffer
	j.stdout, j.stderr = &stdout, &stderr
	p, err := l.start(ctx, j)
	if err != nil {
		return "", err
	}
	<-p.done
	out := strings.TrimRight(stdout.String(), "\n")
	if p.err == nil || errors.Is(p.err, exec.ErrWaitDelay) {
		return out, nil
	}
	err = p.err
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	if said := strings.TrimSpace(stderr.String()); said != "" {
		return out, fmt.Errorf("%s: %w: %s", p.line, err, said)
	}
	return out, fmt.Errorf("%s: %w", p.line, err)
}

func (p *Proc) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process and returns how it ended.
func (p *Proc) Wait() error {
	<-p.done
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.line, p.err)
	}
	return nil
}

// Log is the file that holds what the process wrote.
func (p *Proc) Log() string { return p.log }

// Pid is the process's number as seen from outside its host.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Signal sends the process a signal.
func (p *Proc) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.line, err)
	}
	return nil
}

// Stop asks the process to end and waits for it until ctx ends.
func (p *Proc) Stop(ctx context.Context) error {
	if err := p.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", p.line, context.Cause(ctx))
	}
}

// Kill ends the process and its process group at once and waits for it.
func (p *Proc) Kill() {
	p.cancel()
	<-p.done
}
