package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	api "github.com/docker/go-plugins-helpers/ipam"
)

// Two hundred containers that start at once get two hundred addresses, all on
// disk, and while half of them stop and start again nothing is given twice.
func TestManyAtOnce(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{}`, defaultPool)
	var owners sync.Map
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			mac := fmt.Sprintf("02:42:00:00:%02x", i)
			for round := range 3 {
				res, err := f.RequestAddress(t.Context(), &api.RequestAddressRequest{PoolID: "10.5.7.0/24", Options: map[string]string{macOption: fmt.Sprintf("%s:%02x", mac, round)}})
				if err != nil {
					t.Error(err)
					return
				}
				if other, taken := owners.LoadOrStore(res.Address, mac); taken {
					t.Errorf("%s is %s's and %s's", res.Address, other, mac)
				}
				if i%2 == 0 || round == 2 {
					return
				}
				owners.Delete(res.Address)
				addr := netip.MustParsePrefix(res.Address).Addr().String()
				if err := f.ReleaseAddress(t.Context(), &api.ReleaseAddressRequest{PoolID: "10.5.7.0/24", Address: addr}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	before := fmt.Sprint(f.Addresses())
	f.restart()
	if after := fmt.Sprint(f.Addresses()); after != before || f.Usage()[prefix("10.5.7.0/24")].Used != 200 {
		t.Errorf("in memory:\n%s\non disk:\n%s", before, after)
	}
}

// A call that is repeated while the first is not on disk yet waits for it.
func TestRepeatedBeforeSaved(t *testing.T) {
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprintf("broken=%t", broken), func(t *testing.T) {
			f := newFixture(t)
			f.want("RequestPool", `{}`, defaultPool)
			synctest.Test(t, func(t *testing.T) {
				f.restart() // channels of this bubble
				p, addr, fresh, err := f.take(t.Context(), "10.5.7.0/24", netip.Addr{}, mac1)
				if err != nil || !fresh {
					t.Fatal(fresh, err)
				}
				if _, _, _, err := f.take(canceled(), "10.5.7.0/24", netip.Addr{}, mac1); !errors.Is(err, context.Canceled) {
					t.Errorf("with nobody waiting any more: got %v", err)
				}
				if err := f.ReleaseAddress(t.Context(), &api.ReleaseAddressRequest{PoolID: "10.5.7.0/24", Address: addr.String()}); err == nil {
					t.Error("an address was released while it was being handed out")
				}
				again := make(chan string, 1)
				go func() {
					res, err := f.RequestAddress(context.Background(), &api.RequestAddressRequest{PoolID: "10.5.7.0/24", Options: map[string]string{macOption: mac1}})
					if err != nil {
						again <- err.Error()
						return
					}
					again <- res.Address
				}()
				synctest.Wait()
				select {
				case got := <-again:
					t.Errorf("answered %s before the address was on disk", got)
				default:
				}
				if broken {
					defer f.breakDisk()()
				}
				if err := f.settle(p, addr); (err != nil) != broken {
					t.Error(err)
				}
				want := addr.String() + "/24"
				if got := <-again; (got == want) == broken {
					t.Errorf("got %s", got)
				}
				if used := p.Used(); used != 1 && !broken || used != 0 && broken {
					t.Errorf("%d addresses in use", used)
				}
			})
		})
	}
}

// What could not be saved was not handed out; what was released stays so.
func TestDiskBroken(t *testing.T) {
	f := newFixture(t)
	mend := f.breakDisk()
	if got := f.call("RequestPool", `{}`); !strings.Contains(got, f.path) || !strings.Contains(got, "try again") {
		t.Errorf("RequestPool: got %s", got)
	}
	if len(f.host.acquired) != 0 || len(f.Addresses()) != 0 {
		t.Errorf("left behind: %v, %v", f.host.acquired, f.Addresses())
	}
	mend()
	f.want("RequestPool", `{}`, defaultPool)
	f.want("RequestAddress", start(mac1), given("10.5.7.2"))

	mend = f.breakDisk()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if got := f.call("RequestAddress", start(fmt.Sprintf("02:42:00:00:00:%02x", i%10))); !strings.Contains(got, f.path) {
				t.Errorf("RequestAddress: got %s", got)
			}
		})
	}
	wg.Wait()
	f.want("RequestAddress", start(mac1), given("10.5.7.2"))
	if got := f.call("ReleaseAddress", `{"PoolID":"10.5.7.0/24","Address":"10.5.7.2"}`); !strings.Contains(got, f.path) {
		t.Errorf("ReleaseAddress: got %s", got)
	}
	if got := fmt.Sprint(f.Addresses()); got != "map[10.5.7.0/24:[]]" {
		t.Errorf("in use: %s", got)
	}
	mend()
	f.want("RequestAddress", start(mac2), given("10.5.7.13"))
	f.restart()
	if got := fmt.Sprint(f.Addresses()); got != "map[10.5.7.0/24:[{10.5.7.13 "+mac2+"}]]" {
		t.Errorf("after a restart: %s", got)
	}

	defer f.breakDisk()()
	if got := f.call("ReleasePool", `{"PoolID":"10.5.7.0/24"}`); !strings.Contains(got, f.path) {
		t.Errorf("ReleasePool: got %s", got)
	}
	if len(f.host.acquired) != 0 || len(f.Addresses()) != 0 {
		t.Errorf("left behind: %v, %v", f.host.acquired, f.Addresses())
	}
}

// While a subnet is being acquired, addresses of other pools are handed out;
// another call about pools waits no longer than its context.
func TestSlowAcquire(t *testing.T) {
	f := newFixture(t)
	f.want("RequestPool", `{}`, defaultPool)
	synctest.Test(t, func(t *testing.T) {
		f.restart()
		f.host.hold = make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := f.RequestPool(context.Background(), &api.RequestPoolRequest{Pool: "10.6.0.0/16"})
			done <- err
		}()
		synctest.Wait()
		f.want("RequestAddress", start(mac1), given("10.5.7.2"))
		if err := f.ReleasePool(canceled(), &api.ReleasePoolRequest{PoolID: "10.5.7.0/24"}); !errors.Is(err, context.Canceled) {
			t.Errorf("ReleasePool beside RequestPool: got %v", err)
		}
		close(f.host.hold)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkStart is one container's address on disk, alone and among fifty.
func BenchmarkStart(b *testing.B) {
	for _, parallel := range []int{1, 50} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			f := newFixture(b)
			f.want("RequestPool", `{}`, defaultPool)
			var left, owner atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range parallel {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						n := owner.Add(1)
						mac := fmt.Sprintf("02:42:00:00:%02x:%02x", n>>8&0xff, n&0xff)
						res, err := f.RequestAddress(b.Context(), &api.RequestAddressRequest{PoolID: "10.5.7.0/24", Options: map[string]string{macOption: mac}})
						if err != nil {
							b.Error(err)
							return
						}
						if _, err := f.release("10.5.7.0/24", netip.MustParsePrefix(res.Address).Addr()); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
