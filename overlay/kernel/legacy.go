package kernel

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

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
		t, err := readLegacy(&legacyIPv4)
		if err != nil || t == nil {
			return err
		}
		a := t.acceptance()
		if !a.user {
			chain = forwardChain
		}
		if a.drops && (!a.in || !a.out) {
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

// legacyAcceptance is what a legacy filter table does with our packets.
type legacyAcceptance struct {
	user    bool // DOCKER-USER exists
	drops   bool // FORWARD's policy
	in, out bool // our two rules, in any chain
}

func (t *legacyTable) acceptance() legacyAcceptance {
	var a legacyAcceptance
	for _, r := range t.rules {
		switch {
		case r.target == legacyHead:
			a.user = a.user || r.chain == userChain
		case r.target == "" && r.at == t.policies[unix.NF_INET_FORWARD]:
			a.drops = r.verdict == -nfDrop-1
		case r.target == "" && r.verdict == -nfAccept-1 && len(r.matches) == 0 && r.field(t.inverse, 1)[0] == 0:
			a.in = a.in || ourBridges(r.in())
			a.out = a.out || ourBridges(r.out())
		}
	}
	return a
}

// ourBridges tells whether an interface match means every bridge of ours.
func ourBridges(name, mask []byte) bool {
	size := len(BridgePrefix)
	return string(name[:size]) == BridgePrefix &&
		bytes.Equal(mask[:size+1], append(bytes.Repeat([]byte{0xff}, size), 0))
}
