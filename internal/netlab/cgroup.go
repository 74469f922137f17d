package netlab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A lab's processes and containers live in cgroups below its owner's, so that
// whatever limits the owner limits them, and one folder a hierarchy is all
// there is to remove.

// labCgroups names the lab's cgroup in every mounted hierarchy.
func labCgroups(id string) ([]string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	groups := ownCgroups(string(own), string(mounts))
	for i := range groups {
		groups[i] = filepath.Join(groups[i], id)
	}
	return groups, nil
}

// ownCgroups finds, from the texts of /proc/self/cgroup and
// /proc/self/mountinfo, the folder of each hierarchy below /sys/fs/cgroup that
// the process is in. Beside version 1, version 2 holds nothing of ours.
func ownCgroups(own, mountinfo string) []string {
	paths := make(map[string]string) // by controller, "" for version 2
	for line := range strings.Lines(own) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			paths[controller] = fields[2]
		}
	}
	var first, second []string
	for line := range strings.Lines(mountinfo) {
		mount, super, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, kind := strings.Fields(mount), strings.Fields(super)
		if !ok || len(fields) < 5 || len(kind) < 3 || !strings.HasPrefix(fields[4], "/sys/fs/cgroup") {
			continue
		}
		switch path, v1 := pathOf(paths, kind[2]); {
		case kind[0] == "cgroup2":
			second = appendBelow(second, fields[4], fields[3], paths[""])
		case kind[0] == "cgroup" && v1:
			first = appendBelow(first, fields[4], fields[3], path)
		}
	}
	if len(first) > 0 {
		return first
	}
	return second
}

// appendBelow appends where path is to be seen under a mount that shows root.
func appendBelow(groups []string, mount, root, path string) []string {
	below, err := filepath.Rel(root, path)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return groups
	}
	return append(groups, filepath.Join(mount, below))
}

func pathOf(paths map[string]string, options string) (string, bool) {
	for option := range strings.SplitSeq(options, ",") {
		if path, ok := paths[option]; ok && option != "" {
			return path, true
		}
	}
	return "", false
}

// makeCgroups makes a host's cgroups and returns the leaves for the host's own
// processes. Containers get their own beside or below the leaf.
func makeCgroups(lab []string, host string) ([]string, error) {
	leaves := make([]string, 0, len(lab))
	for _, group := range lab {
		leaf := group
		for _, below := range []string{".", host, "init"} {
			leaf = filepath.Join(leaf, below)
			if err := makeCgroup(leaf); err != nil {
				return nil, err
			}
		}
		leaves = append(leaves, leaf)
	}
	return leaves, nil
}

func makeCgroup(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := inherit(path, file); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

// inherit copies a setting that version 1 leaves empty in a new cgroup, and
// without which the cgroup takes no process.
func inherit(path, file string) error {
	to := filepath.Join(path, file)
	now, err := os.ReadFile(to)
	if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(now)) != "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(path, "cgroup.controllers")); err == nil {
		return nil // version 2, where empty means inherited
	}
	above, err := os.ReadFile(filepath.Join(filepath.Dir(path), file))
	if err != nil {
		return err
	}
	return os.WriteFile(to, above, 0o644)
}

// removeCgroups removes the cgroups with all below them. The kernel takes a
// moment to let go of a process that is gone.
func removeCgroups(groups []string) error {
	var failed error
	for _, group := range groups {
		var last error
		err := poll(30*time.Second, func() bool {
			last = removeCgroup(group)
			return last == nil
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("remove cgroup: %w", last))
		}
	}
	return failed
}

func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := removeCgroup(filepath.Join(path, entry.Name())); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}
