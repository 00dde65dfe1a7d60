package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
)

// enter opens a shell where the task's program waits, and ends the run after it.
// What is typed belongs to the shell, Ctrl-C too.
func (d *debugger) enter() error {
	ctx := context.WithoutCancel(d.cmd.Context())
	pid, err := d.holder(d.cmd.Context())
	if err == nil {
		signal.Ignore(os.Interrupt)
		err = d.openShell(ctx, pid)
	}
	cancelled := d.again(ctx, func() error {
		return d.client().call(ctx, http.MethodPost, "/v1/"+d.name+":cancel", struct{}{}, nil)
	})
	return errors.Join(err, cancelled)
}

// holder waits for the process that stands in for the task.
func (d *debugger) holder(ctx context.Context) (int, error) {
	for {
		// Looked for after the task was seen to run: a holder of this machine is there
		// before long, one of another machine never.
		job, _, err := d.client().fetchRun(ctx, d.name, false)
		if err != nil {
			return 0, err
		}
		if pid := findHolder(d.hold); pid != 0 {
			return pid, nil
		}
		t, err := taskOf(job, d.at)
		if err == nil && t.EndTime != nil {
			return 0, d.verdict(job, t)
		}
		if d.elsewhere(ctx, t) {
			return 0, resource.Errorf(codes.FailedPrecondition, "the task runs on another machine, or as somebody else, and a shell opens on the machine of the server alone").
				WithHint("use --edit or --port, or log in to that machine")
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// elsewhere reports that the program runs and is none of this machine's.
func (d *debugger) elsewhere(ctx context.Context, t *pb.PipelineTaskDetail) bool {
	workloads, err := d.workloads(ctx)
	if err != nil || t == nil {
		return false
	}
	for _, w := range workloads {
		if w.Phase == "RUNNING" && time.Since(w.Started) > startsWithin {
			return true
		}
	}
	return false
}

// startsWithin is longer than an interpreter takes to come to a component.
const startsWithin = 30 * time.Second

// findHolder looks for the process whose variables have the token; 0 = none.
func findHolder(token string) int {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return 0
	}
	for _, file := range files {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(env, []byte(holdVariable+"="+token+"\x00")) {
			continue
		}
		dir := filepath.Dir(file)
		if name, err := os.ReadFile(filepath.Join(dir, "comm")); err != nil || string(bytes.TrimSpace(name)) != "sleep" {
			continue // it does not wait yet
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			return pid
		}
	}
	return 0
}

// openShell runs a shell with the directory, the variables and the namespaces of a
// process.
func (d *debugger) openShell(ctx context.Context, pid int) error {
	proc := "/proc/" + strconv.Itoa(pid)
	text, err := os.ReadFile(proc + "/environ")
	if err != nil {
		return fmt.Errorf("read the task's variables: %w", err)
	}
	var env []string
	for v := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		env = append(env, string(v))
	}
	env = append(env, "PS1=(debug "+d.at+") $ ", "TERM="+os.Getenv("TERM"))
	words := []string{"sh", "-i"}
	if !isTerminal(os.Stdin) {
		words = []string{"sh"}
	}
	dir := proc + "/cwd"
	if namespaces := apart(proc); len(namespaces) > 0 {
		words = append(append([]string{"nsenter", "--target", strconv.Itoa(pid), "--wd=" + dir}, namespaces...), words...)
		dir = ""
	}
	file, err := exec.LookPath(words[0])
	if err != nil {
		return resource.Errorf(codes.FailedPrecondition, "%s is needed to enter the task: %w", words[0], err).WithHint("install util-linux")
	}
	d.say("./%s starts the task; the run ends with this shell", taskScript)
	shell := exec.CommandContext(ctx, file, words[1:]...)
	shell.Dir, shell.Env = dir, env
	shell.Stdin, shell.Stdout, shell.Stderr = os.Stdin, d.cmd.OutOrStdout(), d.cmd.ErrOrStderr()
	err = shell.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		code := ended.ExitCode()
		if s, ok := ended.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			code = 128 + int(s.Signal())
		}
		return &exit{code: code}
	}
	return err
}

// apart gives the options of nsenter for the namespaces that a process does not
// share with us.
func apart(proc string) []string {
	var out []string
	for _, ns := range []struct{ file, option string }{
		{"user", "--user"}, {"mnt", "--mount"}, {"uts", "--uts"}, {"ipc", "--ipc"}, {"net", "--net"}, {"pid", "--pid"},
	} {
		theirs, err := os.Readlink(proc + "/ns/" + ns.file)
		ours, err2 := os.Readlink("/proc/self/ns/" + ns.file)
		if err == nil && err2 == nil && theirs != ours {
			out = append(out, ns.option)
		}
	}
	if len(out) > 0 && out[0] == "--user" {
		out = append(out, "--preserve-credentials")
	}
	return out
}
