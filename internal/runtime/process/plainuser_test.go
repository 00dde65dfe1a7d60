package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// nobody owns nothing on any machine.
const nobody = 65534

// asPlainUser runs tests of this package again as a user without any privilege.
func asPlainUser(t *testing.T, pattern string, attack []byte) (out []byte, err error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this is a plain user already")
	}
	// Not below t.TempDir: its parent is root's alone.
	dir, err := os.MkdirTemp("", "plain-user-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program, attacker, home := filepath.Join(dir, "test"), filepath.Join(dir, "attack"), filepath.Join(dir, "home")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{program: self, attacker: attack} {
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.run", pattern)
	cmd.Dir, cmd.Env = home, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, attackVariable + "=" + attacker}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd.CombinedOutput()
}

// TestWarmAsPlainUser: where /gcs is mounted in a user namespace of the program's own,
// one that is forked cannot be told from one that is started either.
func TestWarmAsPlainUser(t *testing.T) {
	t.Parallel()
	out, err := asPlainUser(t, "^TestWarm(EqualsCold|Ends)$", nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if skipped := regexp.MustCompile(`(?m)^\s*--- SKIP: .*\n.*`).Find(out); skipped != nil {
		t.Skipf("as a plain user: %s", skipped)
	}
	if n := strings.Count(string(out), "--- PASS: TestWarm"); n < 4 {
		t.Errorf("%d tests passed:\n%s", n, out)
	}
}

// TestAsPlainUser runs the attempts again as a user without any privilege, who
// makes containers by user namespaces alone.
func TestAsPlainUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this is a plain user already")
	}
	b, err := attacker()
	if err != nil {
		t.Skip(err)
	}
	out, err := asPlainUser(t, "^Test(Escape.*|NoNetwork|MetadataOfAnother|OthersGoOn|ImageStays|Limits)$", b)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	passed := regexp.MustCompile(`(?m)^\s+--- PASS: TestEscape/`).FindAll(out, -1)
	if strings.Contains(string(out), "--- SKIP: TestEscape (") {
		t.Skipf("a plain user cannot run containers here:\n%s", out)
	}
	if len(passed) < 40 {
		t.Errorf("%d attempts were made:\n%s", len(passed), out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "--- SKIP") || strings.Contains(line, "_test.go:") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
