package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/schema"
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
	applied, err := checkDatabase(filepath.Join(dir, "member", "snap", "db"))
	if err != nil {
		return err
	}
	logs := filepath.Join(dir, "member", "wal")
	if !wal.Exist(logs) {
		return nil
	}
	last, err := checkLog(logs)
	if err == nil && last < applied {
		// etcd cuts a log off where it cannot read it, as after a loss of power.
		// What the database holds was in the log before, so more than its
		// unfinished end is gone.
		err = fmt.Errorf("the log is broken after entry %d, and the database holds entry %d", last, applied)
	}
	if err != nil {
		return unusable(err)
	}
	return nil
}

// checkDatabase returns the index of the last entry that the database holds, 0
// where there is no database.
func checkDatabase(path string) (applied uint64, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return 0, nil // etcd makes it
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return 0, errors.New("the data is in use by another process")
	}
	if err != nil {
		return 0, unusable(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if meta := tx.Bucket(schema.Meta.Name()); meta != nil {
			if index := meta.Get(schema.MetaConsistentIndexKeyName); len(index) == 8 {
				applied = binary.BigEndian.Uint64(index)
			}
		}
		return nil
	})
	return applied, errors.Join(err, db.Close())
}

// checkLog returns the index of the log's last entry.
func checkLog(dir string) (last uint64, err error) {
	snapshots, err := wal.ValidSnapshotEntries(zap.NewNop(), dir)
	if err != nil {
		return 0, err
	}
	if len(snapshots) == 0 { // the first is written with the file
		return 0, errors.New("the log is cut off at its start")
	}
	from := snapshots[len(snapshots)-1]
	log, err := wal.OpenForRead(zap.NewNop(), dir, from)
	if err != nil {
		return 0, err
	}
	_, _, entries, err := log.ReadAll() // closes it, too
	if err != nil {
		return 0, err
	}
	if len(entries) == 0 {
		return from.GetIndex(), nil
	}
	return entries[len(entries)-1].GetIndex(), nil
}

func unusable(err error) error {
	return fmt.Errorf("the data cannot be used: %w; restore it, or remove it to begin anew", err)
}
