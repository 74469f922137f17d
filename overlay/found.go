package overlay

import (
	"context"
	"errors"
	"fmt"
)

// ErrExists means that there is such a network already.
var ErrExists = errors.New("exists already")

// Found creates a network's config, as the first Acquire does, without claiming
// a subnet. ErrExists where there is one.
func (o *Overlay) Found(ctx context.Context, req Request) (Config, error) {
	if req.Name != "" {
		if err := CheckName(req.Name); err != nil {
			return Config{}, err
		}
	}
	initial, err := o.initial(req)
	if err != nil {
		return Config{}, fmt.Errorf("create %s: %w", title(req.Name), err)
	}
	made := false
	cfg, err := o.opt.Store.Config(ctx, req.Name, func(others map[string]Config) ([]byte, error) {
		made = true
		return initial(others)
	})
	if err != nil {
		return Config{}, fmt.Errorf("create %s: %w", title(req.Name), err)
	}
	if !made {
		return Config{}, fmt.Errorf("%s %w (%s, %s)", title(req.Name), ErrExists, cfg.Network, cfg.Backend.Type)
	}
	return cfg, nil
}
