package plugin

import (
	"log/slog"
	"net/http"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/docker-flannel/docker-flannel/driver"
	clerk "github.com/docker-flannel/docker-flannel/ipam"
)

// manifest is the answer to the engine's first call.
const manifest = `{"Implements":["NetworkDriver","IpamDriver"]}`

// routes is the door that the engine calls at.
func routes(drv *driver.Clerk, addrs *clerk.Clerk, log *slog.Logger) http.Handler {
	c := calls{"/Plugin.Activate": activate}

	plain(c, "/NetworkDriver.GetCapabilities", drv.Capabilities())
	handle(c, log, "/NetworkDriver.CreateNetwork", quiet(drv.CreateNetwork))
	handle(c, log, "/NetworkDriver.DeleteNetwork", quiet(drv.DeleteNetwork))
	handle(c, log, "/NetworkDriver.CreateEndpoint", drv.CreateEndpoint)
	handle(c, log, "/NetworkDriver.DeleteEndpoint", quiet(drv.DeleteEndpoint))
	handle(c, log, "/NetworkDriver.EndpointOperInfo", drv.EndpointInfo)
	handle(c, log, "/NetworkDriver.Join", drv.Join)
	handle(c, log, "/NetworkDriver.Leave", quiet(drv.Leave))
	handle(c, log, "/NetworkDriver.ProgramExternalConnectivity", quiet(drv.Publish))
	handle(c, log, "/NetworkDriver.RevokeExternalConnectivity", quiet(drv.Withdraw))
	// Nothing is learnt from the engine about other hosts.
	ignore[network.DiscoveryNotification](c, log, "/NetworkDriver.DiscoverNew")
	ignore[network.DiscoveryNotification](c, log, "/NetworkDriver.DiscoverDelete")

	plain(c, "/IpamDriver.GetCapabilities", addrs.Capabilities())
	plain(c, "/IpamDriver.GetDefaultAddressSpaces", addrs.AddressSpaces())
	handle(c, log, "/IpamDriver.RequestPool", addrs.RequestPool)
	handle(c, log, "/IpamDriver.ReleasePool", quiet(addrs.ReleasePool))
	handle(c, log, "/IpamDriver.RequestAddress", addrs.RequestAddress)
	handle(c, log, "/IpamDriver.ReleaseAddress", quiet(addrs.ReleaseAddress))
	return guard(log, c)
}

// broken answers every call with why the plugin cannot work, so that the
// engine's user reads it instead of waiting.
func broken(why error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/Plugin.Activate" {
			activate(w, r)
			return
		}
		refuse(w, http.StatusOK, why)
	})
}
