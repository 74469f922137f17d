package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// TUNPath is the device file by which TUN devices are made and read.
	TUNPath = "/dev/net/tun"
	// tunQueue is a TUN device's queue in packets: the bursts of a few senders
	// of small packets while its reader is not scheduled.
	tunQueue = 1000
)

// createTUN makes a TUN device that stays without a reader. It is marked before
// it is made to stay, so that none is left behind that nobody knows.
func (k *Kernel) createTUN(l Link) error {
	return k.ns.run(func() (err error) {
		fd, err := unix.Open(TUNPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s (a kernel without the tun driver, or a plugin without the device?): %w", TUNPath, err)
		}
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		req, err := unix.NewIfreq(l.Name)
		if err != nil {
			return fmt.Errorf("name %q: %w", l.Name, err)
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		messages := []message{
			markLink(l.Name),
			setLink(l.Name, false, func(e *encoder) { e.attr32(unix.IFLA_TXQLEN, tunQueue) }),
		}
		if l.MTU != 0 {
			messages = append(messages, setMTU(l.Name, l.MTU))
		}
		if err := firstError(k.route.batch(messages)); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	})
}
