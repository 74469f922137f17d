package kernel

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The netlink wire format: messages and attributes are a length, a type and a
// body, padded to four bytes, in the machine's byte order.

// attrTypeMask is NLA_TYPE_MASK of linux/netlink.h.
const attrTypeMask = 0x3fff

func align(n int) int { return (n + 3) &^ 3 }

// appendMessage appends a message with its header; the kernel is told no port.
func appendMessage(b []byte, kind, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// encoder builds a message's body.
type encoder struct{ b []byte }

func (e *encoder) raw(v ...byte) { e.b = append(e.b, v...) }
func (e *encoder) u16(v uint16)  { e.b = binary.NativeEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32)  { e.b = binary.NativeEndian.AppendUint32(e.b, v) }

func (e *encoder) attr(kind uint16, value ...byte) {
	e.u16(uint16(4 + len(value)))
	e.u16(kind)
	e.b = append(e.b, value...)
	for len(e.b)%4 != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) attr32(kind uint16, v uint32) {
	e.attr(kind, binary.NativeEndian.AppendUint32(nil, v)...)
}

// text adds a string with the NUL that the kernel expects.
func (e *encoder) text(kind uint16, v string) { e.attr(kind, append([]byte(v), 0)...) }

func (e *encoder) addr(kind uint16, v netip.Addr) { e.attr(kind, v.AsSlice()...) }

// nest adds an attribute whose value fill writes.
func (e *encoder) nest(kind uint16, fill func()) {
	start := len(e.b)
	e.attr(kind)
	fill()
	binary.NativeEndian.PutUint16(e.b[start:], uint16(len(e.b)-start))
}

// attributes walks the attributes in b and stops at a torn one. Nesting and
// byte order flags are taken off the types.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			size := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
			if size < 4 || size > len(b) {
				return
			}
			if !yield(kind, b[4:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// The readers below take a value of any length: what is too short reads as zero.

func num8(v []byte) uint8 {
	if len(v) < 1 {
		return 0
	}
	return v[0]
}

func num16(v []byte) uint16 {
	if len(v) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(v)
}

func num16be(v []byte) uint16 {
	if len(v) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(v)
}

func num32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

func num32be(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

// address reads four or sixteen bytes, anything else as the zero Addr.
func address(v []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(v)
	return a
}

func hardware(v []byte) MAC {
	if len(v) != len(MAC{}) {
		return MAC{}
	}
	return MAC(v)
}
