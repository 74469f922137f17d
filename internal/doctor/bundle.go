package doctor

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker-flannel/docker-flannel/internal/report"
	"github.com/docker-flannel/docker-flannel/overlay/kernel"
)

// Bundle writes one archive for a bug report: what the doctor finds and what it
// found it by. Secrets are left out of every file.
func Bundle(ctx context.Context, o Options, tool report.Build, out io.Writer) error {
	v := look(ctx, o)
	files := v.files(ctx, tool)
	hide := v.secrets()
	zip := gzip.NewWriter(out)
	archive := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := hide(files[name])
		head := tar.Header{Name: "flannel/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}
		if err := archive.WriteHeader(&head); err != nil {
			return err
		}
		if _, err := io.WriteString(archive, text); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}

// files are the archive's, by name. What cannot be got is a file that says why.
func (v *visit) files(ctx context.Context, tool report.Build) map[string]string {
	all := Examine(v.world)
	files := map[string]string{
		"doctor.txt": Text(all, false), "doctor.json": indented(all), "world.json": indented(v.world),
		"versions.txt": fmt.Sprintf("tool %+v\nplugin %s\nkernel %s\n", tool, v.world.Plugin.Version, v.world.Kernel.Release),
		"settings.txt": v.settings(), "kernel.txt": dump(),
	}
	var status json.RawMessage
	files["status.json"] = orError(ask(ctx, v.Plugin, "/flannel/v1/status", &status), func() string { return indented(status) })
	var log []string
	files["log.txt"] = orError(ask(ctx, v.Plugin, "/flannel/v1/log", &log), func() string { return strings.Join(log, "\n") + "\n" })
	files["etcd.txt"] = v.why
	if v.outside != nil {
		keys, err := v.outside.Keys(ctx)
		files["etcd.txt"] = orError(err, func() string { return keys })
	}
	var info json.RawMessage
	files["engine.json"] = orError(ask(ctx, v.Engine, "/version", &info), func() string { return indented(info) })
	return files
}

func orError(err error, text func() string) string {
	if err != nil {
		return "not known: " + err.Error() + "\n"
	}
	return text()
}

func indented(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	return orError(err, func() string { return string(text) + "\n" })
}

// hidden stands for a secret.
const hidden = "(hidden)"

// secret are the settings that are one.
var secret = []string{"ETCD_PASSWORD"}

// userinfo is a user name and a password in a URL.
var userinfo = regexp.MustCompile(`//[^/@\s]+@`)

// settings are the plugin's, one a line.
func (v *visit) settings() string {
	env := v.engine.env()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		if slices.Contains(secret, name) && value != "" {
			value = hidden
		}
		fmt.Fprintf(&b, "%s=%s\n", name, value)
	}
	if b.Len() == 0 {
		return v.why + "\n"
	}
	return b.String()
}

// secrets takes the secrets that are known out of a text, wherever they stand.
func (v *visit) secrets() func(string) string {
	var pairs []string
	env := v.engine.env()
	for _, name := range secret {
		if env[name] != "" {
			for _, spelling := range spellings(env[name]) {
				pairs = append(pairs, spelling, hidden)
			}
		}
	}
	if file, inside := strings.CutPrefix(env["ETCD_PASSWORD_FILE"], "/certs/"); inside {
		if text, err := os.ReadFile(filepath.Join(v.engine.mount("certs"), file)); err == nil {
			for _, spelling := range spellings(strings.TrimSpace(string(text))) {
				pairs = append(pairs, spelling, hidden)
			}
		}
	}
	known := strings.NewReplacer(pairs...)
	return func(text string) string { return userinfo.ReplaceAllString(known.Replace(text), "//"+hidden+"@") }
}

// spellings are a secret as such, in JSON and in a URL.
func spellings(secret string) []string {
	if secret == "" {
		return nil
	}
	text, _ := json.Marshal(secret) // a string always can be
	inJSON := string(text[1 : len(text)-1])
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(inJSON)
	return []string{secret, inJSON, plain, url.QueryEscape(secret), url.PathEscape(secret)}
}

// dump is the host's part in the kernel, as our own readers see it.
func dump() string {
	k, err := kernel.Open(kernel.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "not known: " + err.Error() + "\n"
	}
	defer func() { _ = k.Close() }() // it was only read
	ours, err := k.Dump()
	text := orError(err, func() string { return ours })
	all, err := k.Interfaces()
	return text + "\n" + orError(err, func() string {
		var b strings.Builder
		for _, i := range all {
			fmt.Fprintf(&b, "%+v\n", i)
		}
		return b.String()
	})
}
