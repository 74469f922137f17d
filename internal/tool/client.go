package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// client asks the plugin.
type client struct{ socket string }

// callTimeout is longer than the plugin's own bound of a call.
const callTimeout = 15 * time.Second

var errUnreachable = errors.New("the plugin does not answer")

func (c *client) status(ctx context.Context) (s report.Status, err error) {
	return s, c.call(ctx, http.MethodGet, "status", nil, &s)
}

func (c *client) networks(ctx context.Context) (all []report.Cluster, err error) {
	return all, c.call(ctx, http.MethodGet, "networks", nil, &all)
}

// leases lists those of one network, or of all where it is nil.
func (c *client) leases(ctx context.Context, network *string) (all []report.Cluster, err error) {
	path := "leases"
	if network != nil {
		path += "?network=" + url.QueryEscape(*network)
	}
	return all, c.call(ctx, http.MethodGet, path, nil, &all)
}

func (c *client) leave(ctx context.Context, network *string) (left []report.Left, err error) {
	return left, c.call(ctx, http.MethodPost, "leave", map[string]any{"Network": network}, &left)
}

func (c *client) create(ctx context.Context, network, subnet, backend string) (made report.Cluster, err error) {
	return made, c.call(ctx, http.MethodPost, "networks", map[string]string{"Network": network, "Subnet": subnet, "Backend": backend}, &made)
}

func (c *client) remove(ctx context.Context, network string) (gone report.Removed, err error) {
	return gone, c.call(ctx, http.MethodDelete, "networks?network="+url.QueryEscape(network), nil, &gone)
}

// call makes one call; an error of the plugin's is its own text.
func (c *client) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var text bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://flannel/flannel/v1/"+path, &text)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket)
	}}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return c.unreachable(err)
	}
	var failure struct{ Err string }
	switch err := json.Unmarshal(answer, &failure); {
	case err == nil && failure.Err != "": // an older plugin may say 200 with it
		return errors.New(failure.Err)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("the plugin at %s answers %s", c.socket, res.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%w as expected at %s: %w; is it of the same version?", errUnreachable, c.socket, err)
	}
	return nil
}

// unreachable says what to do about a plugin that does not answer.
func (c *client) unreachable(err error) error {
	next := "see docker plugin ls; it is started with: docker plugin enable docker-flannel"
	if errors.Is(err, fs.ErrPermission) {
		next = "it answers root only"
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("%w at %s: %w; %s", errUnreachable, c.socket, err, next)
}
