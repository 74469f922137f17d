package etcd

import (
	"errors"
	"fmt"
	"path"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// identity is how a client makes itself known.
type identity struct {
	hand *handshake
	user string
}

// identityKey finds a client's identity in its context.
type identityKey struct{}

func identityOf(client *clientv3.Client) identity {
	id, ok := client.Ctx().Value(identityKey{}).(identity)
	if !ok {
		id.hand = newHandshake(certs{}, false)
	}
	return id
}

// explain adds to an error about who may do what the setting and the command
// that mend it; prefix is that of all keys.
func (id identity) explain(err error, prefix string) error {
	switch {
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("%w: etcd wants to know who asks; set ETCD_USERNAME and ETCD_PASSWORD_FILE", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		below := path.Join(prefix) + "/"
		return fmt.Errorf("%w: %s has no role that may read and write the keys below %s; run: etcdctl role grant-permission ROLE --prefix=true readwrite %s",
			err, id.name(), below, below)
	}
	return err
}

// name is the etcd user that the client is.
func (id identity) name() string {
	if id.user != "" {
		return "ETCD_USERNAME=" + id.user
	}
	if id.hand.certs.cert != "" {
		if pair, err := id.hand.certs.pair(); err == nil {
			return fmt.Sprintf("user %s, by the common name of ETCD_CERTFILE=%s,", pair.Leaf.Subject.CommonName, id.hand.certs.cert)
		}
	}
	return "a client without ETCD_USERNAME"
}
