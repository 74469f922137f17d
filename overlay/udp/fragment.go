package udp

import "encoding/binary"

// fragment writes the fragment of p that starts at payload byte from, and
// returns its length and where the next one starts, zero after the last. The
// MTU holds the header and eight bytes at least; p itself may be a fragment.
func fragment(dst []byte, p ipv4, mtu, from int) (n, next int) {
	ihl := p.ihl()
	room := (mtu - ihl) &^ 7
	to := min(from+room, len(p)-ihl)
	field := p.fragment() + uint16(from/8)
	if to < len(p)-ihl {
		field |= flagMF
		next = to
	}
	n = ihl + copy(dst[ihl:], p[ihl+from:ihl+to])
	header := dst[:ihl]
	copy(header, p)
	if from > 0 {
		dropOptions(header[minIP:])
	}
	binary.BigEndian.PutUint16(header[2:], uint16(n))
	binary.BigEndian.PutUint16(header[6:], field)
	setIPSum(header)
	return n, next
}

// dropOptions blanks the options that only the first fragment carries (RFC
// 791: those without the copied flag).
func dropOptions(options []byte) {
	const end, noop, copied = 0, 1, 0x80
	for i := 0; i < len(options); {
		kind := options[i]
		if kind == end {
			return
		}
		if kind == noop {
			i++
			continue
		}
		if i+1 >= len(options) || options[i+1] < 2 || i+int(options[i+1]) > len(options) {
			return
		}
		size := int(options[i+1])
		if kind&copied == 0 {
			for j := i; j < i+size; j++ {
				options[j] = noop
			}
		}
		i += size
	}
}
