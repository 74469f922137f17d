package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

// start starts etcd. Over data that it cannot read etcd panics, in part from a
// goroutine of its own; that must not end the whole process without a word
// about what to do. So the data is looked at first, and what then panics still
// is an error as far as it can be caught.
func start(cfg *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = unusable(fmt.Errorf("%v", p))
		}
	}()
	if err := checkData(cfg.Dir); err != nil {
		return nil, err
	}
	return embed.StartEtcd(cfg)
}

// checkData reads the database and the log, where there are any, as etcd will.
func checkData(dir string) error {
	path := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(path); err == nil {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
		if errors.Is(err, bbolterrors.ErrTimeout) {
			return errors.New("the data is in use by another process")
		}
		if err != nil {
			return unusable(err)
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
	logs := filepath.Join(dir, "member", "wal")
	if wal.Exist(logs) {
		entries, err := wal.ValidSnapshotEntries(zap.NewNop(), logs)
		if err == nil && len(entries) == 0 { // the first is written with the file
			err = errors.New("the log is cut off at its start")
		}
		if err != nil {
			return unusable(err)
		}
	}
	return nil
}

func unusable(err error) error {
	return fmt.Errorf("the data cannot be used: %w; restore it, or remove it to begin anew", err)
}
