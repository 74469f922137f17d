package kernel

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ETHTOOL_GTXCSUM and ETHTOOL_STXCSUM of linux/ethtool.h: all of a device's
// offloads of transmit checksums together.
const (
	ethtoolGetTxSum = 0x16
	ethtoolSetTxSum = 0x17
)

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ command, data uint32 }

// ethtoolRequest is struct ifreq as SIOCETHTOOL takes it.
type ethtoolRequest struct {
	name  [unix.IFNAMSIZ]byte
	value *ethtoolValue
	_     [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ethtool carries out one command on a device of our namespace.
func (k *Kernel) ethtool(name string, value *ethtoolValue) error {
	request := ethtoolRequest{value: value}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.route.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return errno
	}
	return nil
}

// takeTxSum reads the offload of a link that has a wish for it. One that
// cannot be read is set.
func (k *Kernel) takeTxSum(v *view, want Link) {
	have, ok := v.links[want.Name]
	if !ok || want.TxSum == Kept {
		return
	}
	value := ethtoolValue{command: ethtoolGetTxSum}
	switch err := k.ethtool(want.Name, &value); {
	case err != nil:
		have.TxSum = Kept
	case value.data == 0:
		have.TxSum = Off
	default:
		have.TxSum = On
	}
	v.links[want.Name] = have
}

// setTxSum sets the offload of a link that has a wish for it.
func (k *Kernel) setTxSum(l Link) error {
	if l.TxSum == Kept {
		return nil
	}
	value := ethtoolValue{command: ethtoolSetTxSum}
	if l.TxSum == On {
		value.data = 1
	}
	if err := k.ethtool(l.Name, &value); err != nil {
		return fmt.Errorf("set transmit checksum offload %s: %w", l.TxSum, err)
	}
	return nil
}
