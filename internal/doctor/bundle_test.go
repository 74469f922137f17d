package doctor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-flannel/docker-flannel/internal/report"
)

// marker is a secret that must not come out.
const marker = `s3cr3t"<m>`

// rumours is an Outside that says the marker wherever it can.
type rumours struct{ w *World }

func (r rumours) Host(context.Context) (report.Host, []report.Difference, error) {
	return r.w.Host, r.w.Audit, nil
}

func (r rumours) Endpoints(context.Context) []report.Endpoint {
	return []report.Endpoint{{URL: "http://192.0.2.2:2379", Error: "bad password " + marker}, {URL: "http://u:" + url.QueryEscape(marker) + "@x:2379"}}
}

func (r rumours) Clusters(context.Context) ([]report.Cluster, error) {
	return nil, errors.New("dial http://root:" + marker + "@192.0.2.2:2379")
}

func (r rumours) Keys(context.Context) (string, error) {
	return "/coreos.com/network/config {} " + marker + "\n", nil
}

func (rumours) Forget(context.Context, string, report.ClusterLease) error { return nil }

// socket serves answers, by path, at a socket.
func socket(t *testing.T, answers map[string]any) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, known := answers[r.URL.Path]
		if !known {
			w.WriteHeader(http.StatusNotFound)
		}
		_ = json.NewEncoder(w).Encode(v)
	}))
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return path
}

// around is a plugin and an engine that say the marker too.
func around(t *testing.T, w *World) Options {
	t.Helper()
	engine := enginePlugin{ID: "abc", Name: "docker-flannel:latest", Enabled: true}
	engine.Settings.Env = []string{"ETCD_USERNAME=flannel", "ETCD_PASSWORD=" + marker, "ETCD_ENDPOINTS=http://u:" + url.QueryEscape(marker) + "@192.0.2.2:2379", "MTU=0"}
	status := report.Status{Host: w.Host, Problems: []report.Finding{{Text: "login as flannel:" + marker + " was refused"}}}
	status.Networks = nil // so that nobody is asked
	return Options{
		Engine: socket(t, map[string]any{
			"/info": map[string]string{"DockerRootDir": "/var/lib/docker"}, "/plugins/docker-flannel/json": engine, "/version": map[string]string{"Version": "28.5"},
		}),
		Plugin: socket(t, map[string]any{
			"/flannel/v1/status": status, "/flannel/v1/audit": []report.Difference{},
			"/flannel/v1/log": []string{"level=INFO msg=serving", "level=ERROR msg=login password=" + marker},
		}),
		Open: func(settings func(string) (string, bool), state, _ string) (Outside, error) {
			if got, _ := settings("MTU"); got != "0" || state != "/var/lib/docker/plugins/abc/propagated-mount" {
				t.Errorf("MTU=%s, state in %s", got, state)
			}
			return rumours{w}, nil
		},
	}
}

// unpack are the files of an archive.
func unpack(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[head.Name] = string(text)
	}
}

func TestBundle(t *testing.T) {
	var out bytes.Buffer
	if err := Bundle(t.Context(), around(t, sound()), report.Build{Version: "v1"}, &out); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &out)
	for name, part := range map[string]string{
		"doctor.txt": "plugin", "doctor.json": `"Check": "etcd"`, "world.json": `"Plugin"`, "versions.txt": "v1", "settings.txt": "ETCD_PASSWORD=(hidden)",
		"kernel.txt": "lo", "status.json": "login as", "log.txt": "msg=serving", "etcd.txt": "/coreos.com/network/config", "engine.json": "28.5",
	} {
		if !strings.Contains(files["flannel/"+name], part) {
			t.Errorf("%s lacks %q: %.300s", name, part, files["flannel/"+name])
		}
	}
	hidden := 0
	for name, text := range files {
		if strings.Contains(text, "s3cr3t") {
			t.Errorf("%s tells the secret", name)
		}
		hidden += strings.Count(text, "(hidden)")
	}
	if hidden < 6 { // the control: there was something to hide
		t.Errorf("%d secrets were hidden", hidden)
	}
}

// TestBundleOfRuins: nobody answers, and the archive says so.
func TestBundleOfRuins(t *testing.T) {
	var out bytes.Buffer
	nowhere := filepath.Join(t.TempDir(), "nobody")
	if err := Bundle(t.Context(), Options{Plugin: nowhere, Engine: nowhere}, report.Build{}, &out); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &out)
	for _, name := range []string{"status.json", "log.txt", "engine.json"} {
		if !strings.HasPrefix(files["flannel/"+name], "not known: no answer at "+nowhere) {
			t.Errorf("%s: %s", name, files["flannel/"+name])
		}
	}
	if !strings.Contains(files["flannel/doctor.txt"], "FAIL plugin") {
		t.Error(files["flannel/doctor.txt"])
	}
}
