package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The legacy xtables can be read with two getsockopt calls. Writing them means
// replacing the whole table, which is better left to its own tool.

// legacyFamily is where the entries of one family have their fields, on 64-bit
// machines: linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.
type legacyFamily struct {
	family  byte
	socket  int    // address family
	level   int    // of the socket's options
	names   string // file that lists the tables in use
	address int    // bytes of an address; the packet's two and their masks come first

	devices        int // two names and their masks follow
	protocol       int
	flags, inverse int
	target, next   int // where these offsets are
	head           int // size of an entry without its matches

	anyProtocol  func(flags byte, protocol uint16) bool
	fragment, to byte // flags: a later fragment, and goto
}

var (
	legacyIPv4 = legacyFamily{
		family: unix.NFPROTO_IPV4, socket: unix.AF_INET, level: unix.SOL_IP, names: "ip_tables_names", address: 4,
		devices: 16, protocol: 80, flags: 82, inverse: 83, target: 88, next: 90, head: 112,
		anyProtocol: func(_ byte, protocol uint16) bool { return protocol == 0 }, fragment: 1, to: 2,
	}
	legacyIPv6 = legacyFamily{
		family: unix.NFPROTO_IPV6, socket: unix.AF_INET6, level: unix.SOL_IPV6, names: "ip6_tables_names", address: 16,
		devices: 64, protocol: 128, flags: 131, inverse: 132, target: 140, next: 142, head: 168,
		anyProtocol: func(flags byte, protocol uint16) bool { return flags&1 == 0 || protocol == 0 }, to: 4,
	}
)

// Bits of an entry's inverse flags, of both families.
const (
	invIn       = 0x01
	invOut      = 0x02
	invSrc      = 0x08
	invDst      = 0x10
	invFragment = 0x20
	invProtocol = 0x40
)

const (
	soGetInfo    = 64
	soGetEntries = 65

	infoSize      = 84
	infoEntry     = 36 // five offsets, one a hook: its first rule
	infoUnderflow = 56 // and its policy
	infoLength    = 80

	entriesStart = 40

	// Of matches and targets, in front of their own data.
	extensionName = 2
	extensionHead = 32

	legacyHead   = "ERROR" // the target that names the chain behind it
	legacyReturn = -5      // XT_RETURN
)

// legacyTable is a legacy filter table.
type legacyTable struct {
	*legacyFamily
	entries, policies [5]int // offsets by hook
	rules             []legacyRule
}

// legacyRule is an entry of a table; the zero of target is a verdict.
type legacyRule struct {
	of      *legacyFamily
	at      int // offset
	raw     []byte
	matches []extension
	target  string
	verdict int32  // below zero, or the offset to jump to
	chain   string // that the entry is the head of
}

// extension is a match of a rule, or its target.
type extension struct {
	name string
	info []byte
}

func (r *legacyRule) field(at, size int) []byte { return r.raw[at : at+size] }

// in and out are interfaces' names, and what of them is compared.
func (r *legacyRule) in() (name, mask []byte) {
	return r.field(r.of.devices, unix.IFNAMSIZ), r.field(r.of.devices+2*unix.IFNAMSIZ, unix.IFNAMSIZ)
}

func (r *legacyRule) out() (name, mask []byte) {
	return r.field(r.of.devices+unix.IFNAMSIZ, unix.IFNAMSIZ), r.field(r.of.devices+3*unix.IFNAMSIZ, unix.IFNAMSIZ)
}

// readLegacy reads the filter table of the calling thread's network namespace;
// nil where legacy xtables are not in use.
func readLegacy(f *legacyFamily) (*legacyTable, error) {
	names, err := os.ReadFile("/proc/thread-self/net/" + f.names)
	if err != nil || !slices.Contains(strings.Fields(string(names)), "filter") {
		return nil, nil // no such file: not in use
	}
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return nil, fmt.Errorf("read legacy filter table: %w", errors.ErrUnsupported)
	}
	fd, err := unix.Socket(f.socket, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read legacy filter table: %w", err)
	}
	defer unix.Close(fd)
	for {
		info, blob, err := f.read(fd)
		if errors.Is(err, unix.EAGAIN) { // it has grown in between
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read legacy filter table: %w", err)
		}
		return parseLegacy(f, info, blob), nil
	}
}

func (f *legacyFamily) read(fd int) (info, blob []byte, err error) {
	info = make([]byte, infoSize)
	copy(info, "filter")
	if err := getsockopt(fd, f.level, soGetInfo, info); err != nil {
		return nil, nil, err
	}
	size := binary.NativeEndian.Uint32(info[infoLength:])
	table := make([]byte, entriesStart+int(size))
	copy(table, "filter")
	binary.NativeEndian.PutUint32(table[32:], size)
	if err := getsockopt(fd, f.level, soGetEntries, table); err != nil {
		return nil, nil, err
	}
	return info, table[entriesStart:], nil
}

func getsockopt(fd, level, option int, buffer []byte) error {
	size := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// parseLegacy walks the table's entries and stops at a torn one.
func parseLegacy(f *legacyFamily, info, b []byte) *legacyTable {
	t := &legacyTable{legacyFamily: f}
	for hook := range t.policies {
		t.entries[hook] = int(num32(info[infoEntry+4*hook:]))
		t.policies[hook] = int(num32(info[infoUnderflow+4*hook:]))
	}
	for at := 0; len(b)-at >= f.head; {
		e := b[at:]
		from, next := int(num16(e[f.target:])), int(num16(e[f.next:]))
		if from < f.head || next < from+extensionHead+4 || next > len(e) {
			break
		}
		target := extensionAt(e[from:next])
		r := legacyRule{of: f, at: at, raw: e[:next], target: target.name, matches: slices.Collect(extensions(e[f.head:from]))}
		switch r.target {
		case "":
			r.verdict = int32(num32(target.info))
		case legacyHead:
			r.chain = unix.ByteSliceToString(target.info)
		}
		t.rules = append(t.rules, r)
		at += next
	}
	return t
}

// extensions yields a rule's matches, up to a torn one.
func extensions(b []byte) iter.Seq[extension] {
	return func(yield func(extension) bool) {
		for len(b) >= extensionHead {
			size := int(num16(b))
			if size < extensionHead || size > len(b) || !yield(extensionAt(b[:size])) {
				return
			}
			b = b[size:]
		}
	}
}

func extensionAt(b []byte) extension {
	return extension{unix.ByteSliceToString(b[extensionName : extensionHead-1]), b[extensionHead:]}
}
