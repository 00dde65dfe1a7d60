package warehousetest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// postgresUser runs PostgreSQL where the tests are root, which it refuses to be.
const postgresUser = "nobody"

// Postgres starts a PostgreSQL of its own on a unix socket and gives its address. The
// test is skipped where it is not installed.
func Postgres(t *testing.T) (dsn string) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Skip("PostgreSQL is not installed (Debian: postgresql)")
	}
	return PostgresOf(t, filepath.Dir(found[len(found)-1]))
}

// PostgresOf is Postgres with the programs of a directory.
func PostgresOf(t *testing.T, bin string) (dsn string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tategu-pg-") //nolint:usetesting // the path of a socket is short, and another user enters it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		attr.Credential = other(t, dir)
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...) //nolint:noctx // the server outlives the test's context: Cleanup ends it
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := run("initdb", "-D", data, "-A", "trust", "-U", "tategu", "--no-sync").CombinedOutput(); err != nil {
		t.Skipf("initdb: %v: %s", err, out)
	}
	server := run("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT) // ends at once; the data goes anyway
		_ = server.Wait()
	})
	ready := time.NewTicker(100 * time.Millisecond) //nolint:mnd // how often it is asked
	defer ready.Stop()
	for range 300 {
		if run("pg_isready", "-h", dir, "-U", "tategu").Run() == nil {
			return fmt.Sprintf("host=%s user=tategu dbname=postgres sslmode=disable", dir)
		}
		<-ready.C
	}
	t.Fatal("PostgreSQL did not become ready")
	return ""
}

func other(t *testing.T, dir string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(postgresUser)
	if err != nil {
		t.Skip("tests are root, and there is no user ", postgresUser)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
