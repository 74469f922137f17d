package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is one netlink socket, reused for every request. It stays in the
// network namespace in which it was opened.
type socket struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	in  []byte
	out []byte
}

// message is one request without its header.
type message struct {
	kind  uint16 // RTM_... or a subsystem's message type
	flags uint16 // beside NLM_F_REQUEST
	body  []byte
}

const (
	// socketTimeout bounds the wait for an answer of the kernel.
	socketTimeout = 5 * time.Second
	// batchSize is the number of requests sent at once: as many answers must
	// fit in the receive buffer if every one of them fails.
	batchSize = 64
	// dumpTries bounds how often a listing that changed meanwhile is repeated.
	dumpTries = 10
)

// dial opens a netlink socket that takes requests, and listens to the
// multicast groups.
func dial(protocol int, groups ...int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := &socket{fd: fd, in: make([]byte, 64<<10)}
	if err := s.prepare(groups); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *socket) prepare(groups []int) error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind netlink socket: %w", err)
	}
	wait := unix.NsecToTimeval(int64(socketTimeout))
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, option, &wait); err != nil {
			return fmt.Errorf("set timeout of netlink socket: %w", err)
		}
	}
	// Older kernels lack some of these; they only spare work and add text.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, option, 1)
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return fmt.Errorf("listen to netlink group %d: %w", group, err)
		}
	}
	return nil
}

func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}

// batch carries out up to batchSize requests in one system call and returns
// one error or nil for each. Only the last asks for an answer: the kernel
// reports failures unasked, and in order.
func (s *socket) batch(messages []message) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]error, len(messages))
	first, last := s.seq+1, len(messages)-1
	s.out = s.out[:0]
	for i, m := range messages {
		flags := m.flags | unix.NLM_F_REQUEST
		if i == last {
			flags |= unix.NLM_F_ACK
		}
		s.seq++
		s.out = appendMessage(s.out, m.kind, flags, s.seq, m.body)
	}
	err := s.send()
	for err == nil {
		var answers []answer
		if answers, err = s.receive(0); err != nil {
			break
		}
		for _, a := range answers {
			i := int(a.seq - first)
			if i < 0 || i > last || a.kind != unix.NLMSG_ERROR {
				continue // late answer to an earlier request
			}
			errs[i] = a.err()
			if i == last {
				return errs
			}
		}
	}
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
	return errs
}

// do carries out one request.
func (s *socket) do(m message) error { return s.batch([]message{m})[0] }

// dump lists what m asks for. A listing that changed while it was read is
// read again.
func (s *socket) dump(m message) ([]answer, error) {
	m.flags |= unix.NLM_F_DUMP
	for range dumpTries {
		found, err := s.query(m)
		if !errors.Is(err, errInterrupted) {
			return found, err
		}
	}
	return nil, errInterrupted
}

var errInterrupted = errors.New("the kernel's list kept changing while it was read")

// query sends one request and collects its answers.
func (s *socket) query(m message) ([]answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	s.out = appendMessage(s.out[:0], m.kind, m.flags|unix.NLM_F_REQUEST, s.seq, m.body)
	if err := s.send(); err != nil {
		return nil, err
	}
	var found []answer
	interrupted := false
	for {
		answers, err := s.receive(0)
		if err != nil {
			return nil, err
		}
		for _, a := range answers {
			if a.seq != s.seq {
				continue
			}
			interrupted = interrupted || a.flags&unix.NLM_F_DUMP_INTR != 0
			if a.kind != unix.NLMSG_ERROR && a.kind != unix.NLMSG_DONE {
				found = append(found, a)
				if a.flags&unix.NLM_F_MULTI == 0 {
					return found, nil
				}
				continue
			}
			if err := a.err(); err != nil {
				return nil, err
			}
			if interrupted {
				return nil, errInterrupted
			}
			return found, nil
		}
	}
}

// send writes the out buffer to the kernel.
func (s *socket) send() error {
	if s.fd < 0 {
		return errClosed
	}
	for {
		err := unix.Sendto(s.fd, s.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

var errClosed = errors.New("the netlink socket is closed")

// receive reads one datagram: one or more messages. Their bodies are the
// caller's to keep.
func (s *socket) receive(flags int) ([]answer, error) {
	for {
		n, _, got, from, err := unix.Recvmsg(s.fd, s.in, nil, flags)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && flags&unix.MSG_DONTWAIT == 0:
			return nil, fmt.Errorf("no answer from the kernel within %s: %w", socketTimeout, err)
		case err != nil:
			return nil, err
		case got&unix.MSG_TRUNC != 0:
			return nil, errors.New("netlink message longer than 64 KiB")
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid != 0 {
			continue // another process, not the kernel
		}
		return splitMessages(append([]byte(nil), s.in[:n]...)), nil
	}
}

// answer is one message from the kernel.
type answer struct {
	kind, flags uint16
	seq, port   uint32
	body        []byte
}

// splitMessages cuts a datagram into its messages, and drops a torn tail.
func splitMessages(b []byte) []answer {
	var found []answer
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			break
		}
		found = append(found, answer{
			kind:  binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			port:  binary.NativeEndian.Uint32(b[12:]),
			body:  b[unix.SizeofNlMsghdr:size],
		})
		b = b[min(align(size), len(b)):]
	}
	return found
}

// err is what a final message says: nil for success, an errno with the
// kernel's own words if it gave any.
func (a answer) err() error {
	if len(a.body) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(a.body))
	if code >= 0 {
		return nil
	}
	errno := syscall.Errno(-code)
	if a.flags&unix.NLM_F_ACK_TLVS == 0 {
		return errno
	}
	rest := a.body[4:]
	skip := unix.SizeofNlMsghdr
	if a.kind == unix.NLMSG_DONE {
		skip = 0
	} else if a.flags&unix.NLM_F_CAPPED == 0 && len(rest) >= 4 {
		skip = align(int(binary.NativeEndian.Uint32(rest)))
	}
	if skip > len(rest) {
		return errno
	}
	for kind, value := range attributes(rest[skip:]) {
		if kind == unix.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", errno, unix.ByteSliceToString(value))
		}
	}
	return errno
}
