package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

func TestAgree(t *testing.T) {
	t.Parallel()
	for theirs, want := range map[string]int{"1.40": 40, "1.41": 41, "1.47": 47, "1.99": 47} {
		if got, err := agree(theirs); got != want || err != nil {
			t.Errorf("agree(%q) = %d, %v, want %d", theirs, got, err, want)
		}
	}
	for _, theirs := range []string{"", "1.39", "2.0", "1", "1.x"} {
		if got, err := agree(theirs); err == nil {
			t.Errorf("agree(%q) = %d", theirs, got)
		}
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0a", 32)
	for reference, want := range map[string][2]string{
		"busybox": {"busybox", "latest"}, "a/b:1": {"a/b", "1"}, "localhost:5000/a": {"localhost:5000/a", "latest"},
		"h.example:5000/a/b-c_d.e:v1.2": {"h.example:5000/a/b-c_d.e", "v1.2"}, "a@" + digest: {"a", digest}, "h:1/a:t@" + digest: {"h:1/a", digest},
	} {
		name, tag := splitReference(reference)
		if d := cmp.Diff(want, [2]string{name, tag}); d != "" {
			t.Errorf("%s: %s", reference, d)
		}
		if !regexp.MustCompile(validReference).MatchString(reference) {
			t.Errorf("%s is refused", reference)
		}
	}
	for _, reference := range []string{"", "/a", "a/", "../containers", "a/../b", "a/./b", "a?x=1", "a b", "a:", "a:1:2", "a%2fb", "https://a/b", "-a", "a\n"} {
		if regexp.MustCompile(validReference).MatchString(reference) {
			t.Errorf("%q is taken", reference)
		}
	}
}

func frame(stream byte, text string) []byte {
	head := [frameHead]byte{0: stream}
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return append(head[:], text...)
}

func TestFrames(t *testing.T) {
	t.Parallel()
	good := bytes.Join([][]byte{frame(1, "out\n"), frame(2, ""), frame(2, "err\n"), frame(1, "end")}, nil)
	for name, tc := range map[string]struct {
		in, want, say string
	}{
		"whole":    {in: string(good), want: "out\nerr\nend"},
		"cut head": {in: string(good) + "\x01\x00", want: "out\nerr\nend", say: "within a frame"},
		"cut text": {in: string(good[:len(good)-1]), want: "out\nerr\nen", say: "within a frame"},
		"engine":   {in: string(frame(3, "disk gone")), say: "disk gone"},
		"no frame": {in: "plain text of a terminal", say: "not a frame"},
	} {
		for _, size := range []int{1, 3, 4096} {
			var got bytes.Buffer
			_, err := io.CopyBuffer(&got, struct{ io.Reader }{&frames{from: io.NopCloser(strings.NewReader(tc.in))}}, make([]byte, size))
			if got.String() != tc.want || (err == nil) != (tc.say == "") || err != nil && !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%s by %d: %q, %v", name, size, got.String(), err)
			}
		}
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var said []string
	say := func(line string) { said = append(said, line) }
	err := progress(strings.NewReader(`{"status":"Pulling","id":"ab"}{"status":"Downloading","progress":"[=> ]","id":"ab"}{"stream":"x"}`), say)
	if d := cmp.Diff([]string{"ab Pulling", "ab Downloading [=> ]"}, said); d != "" || err != nil {
		t.Fatal(err, d)
	}
	for in, want := range map[string]string{
		`{"status":"x"}{"errorDetail":{"message":"manifest unknown"},"error":"old"}`: "manifest unknown",
		`{"error":"only this"}`: "only this",
		`{"status":`:            "progress",
	} {
		if err := progress(strings.NewReader(in), say); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestNotExecuted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		code int
		line string
		want runtime.Refusal
	}{
		{127, "[FATAL tini (7)] exec no-such failed: No such file or directory", runtime.RefusedMissing},
		{126, "[FATAL tini (7)] exec /etc/passwd failed: Permission denied", runtime.RefusedDenied},
		{1, "ERROR (catatonit:2): failed to exec pid1: Exec format error", runtime.RefusedFormat},
		{0, "[FATAL tini (7)] exec no-such failed: No such file or directory", ""},
		{127, "sh: 1: no-such: not found", ""},
		{126, "he said [FATAL tini (7)] x: not found", ""},
	} {
		if got := notExecuted(tc.code, []string{"before", tc.line}); got != tc.want {
			t.Errorf("%d %q: %q", tc.code, tc.line, got)
		}
	}
}

func TestStartError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]resource.Cause{
		`OCI runtime create failed: runc create failed: exec: "no-such": executable file not found in $PATH: unknown`: resource.CauseInput,
		"crun: executable file `x` not found in $PATH: No such file or directory":                                     resource.CauseInput,
		`exec: "/etc/passwd": permission denied`:                                                                      resource.CauseInput,
		`chdir to cwd ("/x") set in config.json failed: no such file or directory`:                                    resource.CauseInput,
		"unable to find user u: no matching entries in passwd file":                                                   resource.CauseInput,
		`could not select device driver "" with capabilities: [[gpu]]`:                                                resource.CauseResource,
		`error mounting "/a" to rootfs at "/b": exec: "x": not a directory`:                                           resource.CausePlatform,
		"no space left on device": resource.CausePlatform,
	} {
		err := startError(runtime.Workload{Image: "i:1"}, &engineError{Status: 400, Message: text})
		refused, ok := errors.AsType[*refusedError](err)
		got := resource.CauseInput
		if !ok {
			got = resource.Outcome(err).Cause
		} else if refused.why == "" {
			t.Errorf("%s: refused without a reason", text)
		}
		if got != want {
			t.Errorf("%s: cause %q, want %q", text, got, want)
		}
	}
	if err := startError(runtime.Workload{}, io.EOF); !errors.Is(err, io.EOF) {
		t.Errorf("an error that is not the engine's became %v", err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frame(1, "text"))
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := io.ReadAll(&frames{from: io.NopCloser(bytes.NewReader(b))})
		if err == nil && len(out) > len(b) {
			t.Fatalf("%d bytes of %d", len(out), len(b))
		}
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add(`{"status":"x"}{"error":"y"}`, "1.41", "a/b:c@sha256:00")
	f.Fuzz(func(t *testing.T, stream, version, reference string) {
		_ = progress(strings.NewReader(stream), func(string) {}) // any end will do
		if minor, err := agree(version); err == nil && (minor < oldestAPI || minor > newestAPI) {
			t.Fatalf("%q became 1.%d", version, minor)
		}
		name, tag := splitReference(reference)
		if regexp.MustCompile(validReference).MatchString(reference) && (name == "" || tag == "") {
			t.Fatalf("%q became %q %q", reference, name, tag)
		}
		notExecuted(127, []string{stream})
	})
}
