package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The legacy xtables of linux/netfilter_ipv4/ip_tables.h can be read with two
// getsockopt calls. Writing them means replacing the whole table, which is
// better left to its own tool.

// legacyMending tells what to do where a legacy filter table drops forwarded
// packets without our two rules; empty where nothing is to be done.
func (k *Kernel) legacyMending() string {
	chain, err := k.legacyGap()
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%v; run '%s'", err, legacyCommand(chain))
}

// legacyGap is an error where a legacy filter table drops forwarded packets
// without our two rules, or cannot be read, and the chain that they belong to.
func (k *Kernel) legacyGap() (chain string, err error) {
	chain = userChain
	err = k.ns.run(func() error {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err != nil || !slices.Contains(strings.Fields(string(names)), "filter") {
			return nil //nolint:nilerr // no such file: legacy xtables are not in use
		}
		blob, underflow, err := readLegacy()
		if err != nil {
			return fmt.Errorf("read legacy filter table: %w", err)
		}
		t := parseLegacy(blob, underflow)
		if !t.user {
			chain = forwardChain
		}
		if t.drops && (!t.in || !t.out) {
			return errLegacy
		}
		return nil
	})
	return chain, err
}

// legacyCommand adds the two rules.
func legacyCommand(chain string) string {
	const insert = "iptables-legacy -I %s -%s " + BridgePrefix + "+ -j ACCEPT"
	return fmt.Sprintf(insert+" && "+insert, chain, "i", chain, "o")
}

var errLegacy = errors.New("the host's legacy iptables drops forwarded packets")

// Numbers and offsets of linux/netfilter_ipv4/ip_tables.h on 64-bit machines.
const (
	soGetInfo    = 64
	soGetEntries = 65

	infoSize      = 84
	infoUnderflow = 56 // five offsets, one a hook
	infoLength    = 80

	entriesStart = 40
	entryHead    = 112
	entryIn      = 16
	entryOut     = 32
	entryInMask  = 48
	entryOutMask = 64
	entryInverse = 83
	entryTarget  = 88
	entryNext    = 90
	targetName   = 2
	targetData   = 32
)

// readLegacy copies the filter table's entries out of the kernel, with the
// offset of FORWARD's policy in them.
func readLegacy() (blob []byte, underflow int, err error) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return nil, 0, errors.ErrUnsupported
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(fd)
	info := make([]byte, infoSize)
	copy(info, "filter")
	if err := getsockopt(fd, soGetInfo, info); err != nil {
		return nil, 0, err
	}
	size := binary.NativeEndian.Uint32(info[infoLength:])
	table := make([]byte, entriesStart+int(size))
	copy(table, "filter")
	binary.NativeEndian.PutUint32(table[32:], size)
	if err := getsockopt(fd, soGetEntries, table); err != nil {
		return nil, 0, err
	}
	return table[entriesStart:], int(num32(info[infoUnderflow+4*unix.NF_INET_FORWARD:])), nil
}

func getsockopt(fd, option int, buffer []byte) error {
	size := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// legacyTable is what matters of a legacy filter table.
type legacyTable struct {
	user    bool // DOCKER-USER exists
	drops   bool // FORWARD's policy
	in, out bool // our two rules, in any chain
}

// parseLegacy walks the table's entries and stops at a torn one.
func parseLegacy(b []byte, underflow int) legacyTable {
	var t legacyTable
	for at := 0; len(b)-at >= entryHead; {
		e := b[at:]
		target, next := int(num16(e[entryTarget:])), int(num16(e[entryNext:]))
		if target < entryHead || next < target+targetData+4 || next > len(e) {
			break
		}
		name := unix.ByteSliceToString(e[target+targetName : target+targetData-1])
		verdict := int32(num32(e[target+targetData:]))
		switch {
		case name == "ERROR":
			t.user = t.user || unix.ByteSliceToString(e[target+targetData:next]) == userChain
		case name == "" && at == underflow:
			t.drops = verdict == -nfDrop-1
		case name == "" && verdict == -nfAccept-1 && target == entryHead && e[entryInverse] == 0:
			t.in = t.in || ourBridges(e[entryIn:], e[entryInMask:])
			t.out = t.out || ourBridges(e[entryOut:], e[entryOutMask:])
		}
		at += next
	}
	return t
}

// ourBridges tells whether an interface match means every bridge of ours.
func ourBridges(name, mask []byte) bool {
	size := len(BridgePrefix)
	return string(name[:size]) == BridgePrefix &&
		bytes.Equal(mask[:size+1], append(bytes.Repeat([]byte{0xff}, size), 0))
}
