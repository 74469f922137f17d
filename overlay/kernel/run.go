package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// runner carries out the ops of one Apply.
type runner struct {
	k        *Kernel
	expected map[string]bool // ops that follow from want alone; nil counts no repairs
	result   *Result
	broken   map[string]bool // devices, or "nft", that what hangs on them waits for
	failed   map[string]bool // kinds with an object that is not as wanted
	index    map[string]int  // devices by name, as far as looked up
}

// all carries out ops in order. Each fails alone, except that what needs a
// device that is not there is left out: the device's failure stands for it.
func (r *runner) all(ctx context.Context, ops []op) {
	r.index = map[string]int{}
	for len(ops) > 0 {
		if err := ctx.Err(); err != nil {
			r.stop(ops, err)
			return
		}
		n := batchable(ops)
		r.some(ops[:n])
		ops = ops[n:]
	}
}

// stop gives up what is left.
func (r *runner) stop(ops []op, err error) {
	for _, o := range ops {
		r.failed[o.on.kind()] = true
	}
	r.result.fail("apply", fmt.Errorf("%d changes left, from %s: %w", len(ops), ops[0], err))
}

// batchable is the number of ops that go to the kernel at once.
func batchable(ops []op) int {
	n := 0
	for n < len(ops) && n < admitBatch && admits(ops[n]) && ops[n].verb == ops[0].verb {
		n++
	}
	if n > 0 {
		return n
	}
	for n < len(ops) && n < batchSize && small(ops[n]) {
		n++
	}
	return max(n, 1)
}

// small tells whether the op is one message.
func small(o op) bool {
	if o.verb == opRefuse {
		return false
	}
	switch o.on.(type) {
	case Neigh, FDB, Route, stray:
		return true
	}
	return false
}

// admits tells whether the op is about whom a door admits.
func admits(o op) bool {
	_, ok := o.on.(Admit)
	return ok
}

// some carries out what batchable cut off.
func (r *runner) some(ops []op) {
	if admits(ops[0]) {
		r.admit(ops)
		return
	}
	if !small(ops[0]) {
		if !r.waits(ops[0]) {
			r.settle(ops[0], r.one(ops[0]))
		}
		return
	}
	sent := make([]op, 0, len(ops))
	messages := make([]message, 0, len(ops))
	for _, o := range ops {
		if r.waits(o) {
			continue
		}
		m, err := r.message(o)
		if err != nil {
			r.settle(o, err)
			continue
		}
		sent, messages = append(sent, o), append(messages, m)
	}
	if len(messages) == 0 {
		return
	}
	for i, err := range r.k.route.batch(messages) {
		r.settle(sent[i], err)
	}
}

// waits tells whether the op needs something that has failed already.
func (r *runner) waits(o op) bool {
	needs := o.on.link()
	switch o.on.(type) {
	case Link:
		if o.verb != opUp {
			return false
		}
	case Door:
		if o.verb == opDelete {
			return false
		}
	case accept:
		// FORWARD is not opened before our own table guards.
		if o.verb != opDelete {
			needs = "nft"
		}
	}
	if needs == "" || !r.broken[needs] {
		return false
	}
	r.failed[o.on.kind()] = true
	return true
}

// settle books the outcome of one op.
func (r *runner) settle(o op, err error) {
	if o.verb == opDelete && isGone(err) {
		err = nil
	}
	if err != nil {
		bits := uint32(doubtNet)
		switch {
		case o.verb == opRefuse:
			bits = 0
		case slices.Contains([]string{"nft", "door", "docker-user"}, o.on.kind()):
			bits = doubtWall
		}
		if o.verb != opRefuse {
			err = fmt.Errorf("%s %s: %w", o.verb, o.on, err)
		}
		r.fail(o, err, bits)
		return
	}
	r.result.Changed++
	if r.expected != nil && !r.expected[o.key()] {
		r.result.Repaired[o.on.kind()]++
	}
	r.k.view.done(o)
	switch on := o.on.(type) {
	case Link:
		r.k.touched[on.Name] = true
		delete(r.index, on.Name)
		r.learn(o)
	case Veth:
		r.k.touched[on.Name], r.k.touched[on.Peer] = true, true
		r.learn(o)
	}
}

// learn reads back what the kernel made of a new device.
func (r *runner) learn(o op) {
	if o.verb != opAdd && o.verb != opRemake {
		return
	}
	if err := r.k.look(o.on); err != nil {
		r.fail(o, err, doubtNet)
	}
}

// fail reports an object that is not as wanted.
func (r *runner) fail(o op, err error, doubt uint32) {
	r.k.mistrust(doubt)
	r.failed[o.on.kind()] = true
	r.result.fail(label(o.on), err)
	switch on := o.on.(type) {
	case Link:
		if o.verb != opSet && o.verb != opDelete {
			r.broken[on.Name] = true
		}
	case Veth:
		if o.verb != opSet && o.verb != opDelete {
			r.broken[on.Name] = true
		}
	case table:
		r.broken["nft"] = true
	}
}

// isGone tells whether an error means that the object does not exist.
func isGone(err error) bool {
	for _, gone := range []error{unix.ENODEV, unix.ENOENT, unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENXIO} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
