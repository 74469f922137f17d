package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// askTime bounds one call at a socket of this host; it is longer than the
// plugin's own bound.
const askTime = 12 * time.Second

// ask gets JSON from a path served at a socket of this host.
func ask(ctx context.Context, socket, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err
		}
		return fmt.Errorf("no answer at %s: %w", socket, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", socket, err)
	}
	if res.StatusCode != http.StatusOK {
		var said struct{ Message, Err string } // the engine's, and the plugin's
		_ = json.Unmarshal(body, &said)        // the status says it too
		return &refusedError{res.StatusCode, strings.TrimSpace(fmt.Sprintf("%s: %s %s%s", socket, res.Status, said.Message, said.Err))}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the answer of %s: %w; is the tool of the plugin's version?", socket, err)
	}
	return nil
}

// refusedError is an answer that is none.
type refusedError struct {
	status int
	text   string
}

func (e *refusedError) Error() string { return e.text }

// enginePlugin is what the engine tells of a plugin.
type enginePlugin struct {
	ID       string `json:"Id"`
	Name     string
	Enabled  bool
	Settings struct {
		Env    []string
		Mounts []struct{ Name, Source string }
	}
}

// env is the plugin's settings as the engine has them.
func (p enginePlugin) env() map[string]string {
	env := map[string]string{}
	for _, pair := range p.Settings.Env {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return env
}

// mount is the host's folder of one of the plugin's mounts; empty for none.
func (p enginePlugin) mount(name string) string {
	for _, m := range p.Settings.Mounts {
		if m.Name == name {
			return m.Source
		}
	}
	return ""
}

// askEngine asks the engine for the plugin, and for the folder of its own files.
func askEngine(ctx context.Context, socket, name string) (p enginePlugin, root string, err error) {
	var info struct{ DockerRootDir string }
	if err := ask(ctx, socket, "/info", &info); err != nil {
		return p, "", err
	}
	err = ask(ctx, socket, "/plugins/"+name+"/json", &p)
	if refused := (*refusedError)(nil); errors.As(err, &refused) && refused.status == http.StatusNotFound {
		err = nil // not installed
	}
	return p, info.DockerRootDir, err
}
