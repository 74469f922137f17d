package kernel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settleTime is how long the kernel must be quiet before wake is called,
	// so that a flood of notifications leads to one Apply.
	settleTime = 50 * time.Millisecond
	// settleLimit bounds the wait for quiet.
	settleLimit = 250 * time.Millisecond
	// noticeBuffer is the room for notifications, in bytes: those of one
	// Apply of thousands of peers must fit. It takes memory only when used.
	noticeBuffer = 64 << 20
)

// Watch listens to the kernel until ctx ends, and then returns nil. When
// something of ours was changed by somebody else, the next Apply reads the
// kernel anew, and wake is called: once for changes that come together. What
// Apply itself does wakes nobody. wake must not block. Settings under /proc/sys tell nothing;
// auditing them takes Doubt.
func (k *Kernel) Watch(ctx context.Context, wake func()) error {
	w := watcher{k: k, wake: wake}
	if err := w.open(); err != nil {
		return errors.Join(err, w.close())
	}
	kick := w.rouse
	if !k.kick.CompareAndSwap(nil, &kick) {
		return errors.Join(errors.New("the kernel is being watched already"), w.close())
	}
	stop := context.AfterFunc(ctx, w.rouse)
	err := w.loop(ctx)
	stop()
	k.kick.Store(nil)
	return errors.Join(err, w.close())
}

// watcher is one running Watch. It works in one goroutine: notifications are
// taken in at once, and compared whenever no Apply is running, after all that
// the last one caused have been taken in.
type watcher struct {
	k      *Kernel
	wake   func()
	route  *socket
	filter *socket
	rouser int // eventfd

	events []event   // not yet compared
	since  time.Time // when an Apply first put that off; zero for never
	first  time.Time
	last   time.Time // of the changes that wake has not been told of; zero for none
}

func (w *watcher) open() error {
	w.rouser = -1
	err := w.k.ns.run(func() (err error) {
		w.route, err = dial(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_NETCONF)
		if err != nil {
			return err
		}
		w.filter, err = dial(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range []*socket{w.route, w.filter} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, noticeBuffer); err != nil {
			return fmt.Errorf("set buffer for notifications: %w", err)
		}
	}
	if w.rouser, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("open eventfd: %w", err)
	}
	return nil
}

func (w *watcher) close() error {
	var errs []error
	for _, s := range []*socket{w.route, w.filter} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if w.rouser >= 0 {
		errs = append(errs, unix.Close(w.rouser))
	}
	return errors.Join(errs...)
}

// rouse makes the loop look around.
func (w *watcher) rouse() { _, _ = unix.Write(w.rouser, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (w *watcher) loop(ctx context.Context) error {
	// Nobody listened before: whatever is known may be out of date.
	w.changed(doubtAll, "began to listen")
	for {
		if err := w.wait(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to end
		}
		if err := w.take(); err != nil {
			return err
		}
		if err := w.compare(); err != nil {
			return err
		}
		if w.due() <= 0 {
			w.first, w.last = time.Time{}, time.Time{}
			w.wake()
		}
	}
}

// wait blocks until there is something to do.
func (w *watcher) wait() error {
	fds := []unix.PollFd{
		{Fd: int32(w.rouser), Events: unix.POLLIN},
		{Fd: int32(w.route.fd), Events: unix.POLLIN},
		{Fd: int32(w.filter.fd), Events: unix.POLLIN},
	}
	timeout := -1
	if !w.last.IsZero() {
		timeout = int(max(w.due(), 0)/time.Millisecond) + 1
	}
	if _, err := unix.Poll(fds, timeout); err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for notifications: %w", err)
	}
	_, _ = unix.Read(w.rouser, make([]byte, 8))
	return nil
}

// due is the time until wake is to be called.
func (w *watcher) due() time.Duration {
	if w.last.IsZero() {
		return settleLimit
	}
	return min(time.Until(w.last.Add(settleTime)), time.Until(w.first.Add(settleLimit)))
}

// changed puts what the bits say in doubt and notes that wake is to be called.
func (w *watcher) changed(bits uint32, seen string) {
	w.k.mistrust(bits)
	w.last = time.Now()
	if w.first.IsZero() {
		w.first = w.last
		w.k.log.Debug("the kernel is to be read anew", "seen", seen)
	}
}

// take reads all notifications that have come.
func (w *watcher) take() error {
	err := drain(w.route, w.lost, func(a answer) {
		if e, ok := parseEvent(a); ok {
			w.events = append(w.events, e)
		}
	})
	if err != nil {
		return err
	}
	return drain(w.filter, w.lost, func(a answer) {
		// The port tells our own transactions from those of others.
		if a.port != w.k.tables.port.Load() && w.k.concerns(a) {
			w.changed(doubtWall, "nftables changed")
		}
	})
}

// lost is told that notifications did not fit in the buffer.
func (w *watcher) lost() {
	w.changed(doubtAll, "more notifications than fit")
}

// drain hands over what is in a socket until it is empty.
func drain(s *socket, lost func(), each func(answer)) error {
	for {
		answers, err := s.receive(unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil:
			return fmt.Errorf("read notifications: %w", err)
		}
		for _, a := range answers {
			each(a)
		}
	}
}

// compare looks whether what came belies the view, unless an Apply is running:
// it rouses us when it ends. One Apply after the other puts it off for no
// longer than settleLimit.
func (w *watcher) compare() error {
	if !w.k.mu.TryLock() {
		if len(w.events) == 0 {
			return nil
		}
		if w.since.IsZero() {
			w.since = time.Now()
		}
		if time.Since(w.since) < settleLimit {
			return nil
		}
		w.k.mu.Lock()
	}
	defer w.k.mu.Unlock()
	w.since = time.Time{}
	// What the last Apply caused has been sent by now.
	if err := w.take(); err != nil {
		return err
	}
	events := w.events
	w.events = nil
	if w.k.view == nil {
		return nil
	}
	reason := w.k.view.judge(events, w.k.touched)
	clear(w.k.touched)
	if reason != "" {
		w.changed(doubtNet, reason)
	}
	return nil
}

// concerns tells whether an nftables notification is about our tables, or about
// the chains of dockerd that our rules belong to.
func (k *Kernel) concerns(a answer) bool {
	if len(a.body) == 0 || a.kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	var table, name string
	chainName := uint16(0)
	switch a.kind & 0xff {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE,
		unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET, unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		chainName = unix.NFTA_CHAIN_NAME
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		chainName = unix.NFTA_RULE_CHAIN
	default:
		return false
	}
	// The table is attribute 1 of them all.
	for kind, v := range attributes(nftBody(a.body)) {
		switch kind {
		case unix.NFTA_TABLE_NAME:
			table = unix.ByteSliceToString(v)
		case chainName:
			name = unix.ByteSliceToString(v)
		}
	}
	switch family := a.body[0]; {
	case family == unix.NFPROTO_INET && (table == Table || table == DoorTable):
		return true
	case (family == unix.NFPROTO_IPV4 || family == unix.NFPROTO_IPV6) && table == "filter":
		return k.guarded.Load() && (chainName == 0 || name == userChain || name == forwardChain)
	}
	return false
}
