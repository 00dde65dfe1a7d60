package process_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tategu/internal/identity"
	"tategu/internal/identity/metadata"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store/sqlite"

	"google.golang.org/grpc/codes"
)

// said is what an attack found instead of a way.
func said(exit runtime.Exit) string { return strings.Join(exit.Tail, " ") }

// TestNoNetwork: a container whose rule says so reaches nothing but itself.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	p := newPrison(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	name := "tategu-alone-" + strconv.Itoa(os.Getpid())
	abstract, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	for attempt, args := range map[string][]string{
		"dial":            {"dial", l.Addr().String()},
		"way out":         {"interfaces"},
		"abstract socket": {"abstract", name},
		"credentials":     {"environs", "GCE_METADATA_HOST="},
	} {
		t.Run(attempt, func(t *testing.T) { p.attack(t, "scratch:alone", args[0], args[1:]...) })
	}
	t.Run("itself", func(t *testing.T) {
		if exit := p.attack(t, "scratch:alone", "talk"); !strings.Contains(said(exit), "heard hello") {
			t.Errorf("exit %+v", exit)
		}
	})
	// The same program reaches the same listener with the machine's network.
	exit := runToEnd(t, p.Runtime, runtime.Workload{ID: "open", Image: "scratch:root", Args: []string{"dial", l.Addr().String()}})
	if exit.Code != 1 || !strings.Contains(said(exit), "OPEN") {
		t.Errorf("exit %+v", exit)
	}
	// Objects are the server's to bring.
	exit = runToEnd(t, p.Runtime, runtime.Workload{ID: "objects", Image: "shell:alone", Command: []string{"sh", "-c", "echo made > /gcs/bucket/x"}, Publish: true, Dirs: []string{"/gcs/bucket"}})
	if got := strings.Join(p.files.Uploads(), " "); !exit.OK() || got != "gs://bucket/x" {
		t.Errorf("exit %+v, published %q", exit, got)
	}
	for what, w := range map[string]runtime.Workload{
		"serve a port":           {Port: true},
		"install packages (six)": {Python: &runtime.Python{Packages: []string{"six"}}},
	} {
		w.ID, w.Image, w.Command = "refused", "shell:alone", []string{"true"}
		_, err := p.Start(t.Context(), w)
		if resource.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "shell:alone") || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestMetadataOfAnother: the port of another task's metadata server can be reached
// and found, but it gives nothing to who does not know its path.
func TestMetadataOfAnother(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rows, err := sqlite.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := identity.NewAuthority(rows, filepath.Join(dir, "identity"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	server := metadata.New(authority, slog.New(slog.DiscardHandler), time.Now)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	p := newPrisonOf(t, server)
	theirs, end, err := server.Open(t.Context(), "victim", "theirs", "")
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	address, secret, _ := strings.Cut(theirs["GCE_METADATA_HOST"], "/")

	if exit := p.attack(t, "scratch:root", "own"); !strings.Contains(said(exit), "my own tokens are mine") {
		t.Errorf("exit %+v", exit)
	}
	for name, args := range map[string][]string{
		"every port":                {"tokens"},
		"path in an environment":    {"environs", secret},
		"record of the other task":  {"read", filepath.Join(p.victim, "spec.json")},
		"identity of the server":    {"read", filepath.Join(dir, "identity", "key")},
		"path in the state":         {"read", filepath.Join(dir, "state.db")},
		"port without the path":     {"token", address},
		"port with the own path":    {"token", address, "own"},
		"path without its last":     {"token", address, secret[:len(secret)-1]},
		"path with more":            {"token", address, secret + "0"},
		"path in capitals":          {"token", address, strings.ToUpper(secret)},
		"name of the cloud":         {"token", address, "", "metadata.google.internal"},
		"another address of itself": {"token", strings.Replace(address, "127.0.0.1", "127.0.0.2", 1), secret},
	} {
		t.Run(name, func(t *testing.T) {
			exit := p.attack(t, "scratch:root", args[0], args[1:]...)
			if name == "every port" && strings.Contains(said(exit), "asked 0 ports") {
				t.Errorf("the other task's port was not found: %+v", exit)
			}
		})
	}
	// With the path the same request is answered: it is what protects.
	exit := runToEnd(t, p.Runtime, runtime.Workload{ID: "knows", Project: "mine", Image: "scratch:root", Args: []string{"token", address, secret}})
	if exit.Code != 1 || !strings.Contains(said(exit), "OPEN") {
		t.Errorf("exit %+v", exit)
	}
}

// TestOthersGoOn: what takes all processes and memory that it can is stopped, and
// its neighbour does not notice.
func TestOthersGoOn(t *testing.T) {
	t.Parallel()
	p := newPrison(t)
	victim, err := p.Find(t.Context(), "victim")
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return victim.Status().Phase == runtime.Running }) // its program may say so first
	if note := victim.Status().Message; strings.Contains(note, "limits are not enforced") {
		t.Skip(note)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	neighbour, err := p.Start(ctx, runtime.Workload{ID: "neighbour", Image: "shell:1", Command: []string{"sh", "-c", "while [ ! -e /tategu/work/end ]; do (:); done; echo fine"}})
	if err != nil {
		t.Fatal(err)
	}
	p.attack(t, "scratch:root", "forkbomb")
	exit := runToEnd(t, p.Runtime, runtime.Workload{ID: "hog", Image: "scratch:root", Args: []string{"memory"}, Resources: runtime.Resources{MemoryBytes: 32 << 20}})
	if exit.Signal != "SIGKILL" || exit.Cause != resource.CauseResource {
		t.Errorf("exit %+v", exit)
	}
	writeScript(t, filepath.Join(p.cfg.Dir, "neighbour", "work", "end"), "")
	end, err := neighbour.Wait(ctx)
	if err != nil || !end.OK() || said(end) != "fine" {
		t.Errorf("the neighbour: %+v, %v", end, err)
	}
	if phase := victim.Status().Phase; phase != runtime.Running {
		t.Errorf("the other one is %s", phase)
	}
}
