// Command fuzz runs every fuzz target of the module in turn, each for a while, and
// says which passed. Targets are found by `go test -list`, so that none is
// forgotten. An input that fails is kept below the package's testdata/fuzz, where
// plain `go test` replays it.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	time := flag.String("time", "20s", "how long each target runs, or how often: 1000x")
	only := flag.String("run", ".", "regular expression for PACKAGE.TARGET")
	flag.Parse()
	failed, err := run(ctx, os.Stdout, *time, *only)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "fuzz: "+err.Error())
		os.Exit(2)
	}
	if failed > 0 {
		os.Exit(1)
	}
}

type target struct{ pkg, name string }

func run(ctx context.Context, out io.Writer, time, only string) (failed int, err error) {
	want, err := regexp.Compile(only)
	if err != nil {
		return 0, err
	}
	targets, err := find(ctx)
	if err != nil {
		return 0, err
	}
	passed := 0
	for _, t := range targets {
		label := strings.TrimPrefix(t.pkg, "tategu/") + "." + t.name
		if !want.MatchString(label) {
			continue
		}
		text, err := fuzz(ctx, t, time)
		if err != nil && atItsDeadline(text) {
			text, err = fuzz(ctx, t, time)
		}
		if ctx.Err() != nil {
			return failed, ctx.Err()
		}
		if err != nil {
			failed++
			_, _ = fmt.Fprintf(out, "FAIL %s\n%s\n", label, text)
			continue
		}
		passed++
		_, _ = fmt.Fprintf(out, "ok   %s %s\n", label, executions(text))
	}
	_, err = fmt.Fprintf(out, "%d targets passed, %d failed\n", passed, failed)
	return failed, err
}

// fuzz runs one target with one worker: the machine has other things to do.
func fuzz(ctx context.Context, t target, time string) ([]byte, error) {
	return exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", time, "-parallel", "1", t.pkg).CombinedOutput()
}

// atItsDeadline reports a run that failed by its own end and by no input, which
// Go's fuzzing does now and then.
func atItsDeadline(text []byte) bool {
	return bytes.Contains(text, []byte("context deadline exceeded")) && !bytes.Contains(text, []byte("Failing input"))
}

// find lists the targets of all packages.
func find(ctx context.Context) ([]target, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-list", "^Fuzz", "./...")
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the targets: %w", err)
	}
	var out []target
	var names []string
	for line := range strings.SplitSeq(string(text), "\n") {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "Fuzz"):
			names = append(names, line)
		case len(fields) >= 2 && fields[0] == "ok":
			for _, name := range names {
				out = append(out, target{fields[1], name})
			}
			names = nil
		}
	}
	return out, nil
}

// executions gives how many inputs the last progress line counted.
func executions(text []byte) string {
	found := regexp.MustCompile(`execs: (\d+)`).FindAllSubmatch(text, -1)
	if len(found) == 0 {
		return ""
	}
	return string(bytes.TrimSpace(found[len(found)-1][1])) + " inputs"
}
