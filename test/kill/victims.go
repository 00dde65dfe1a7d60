package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// moment is when a strike comes, seen from the kill of the server in its round.
type moment int

const (
	before moment = iota // while the server runs
	beside               // together with the server
	amid                 // while there is no server
	after                // as soon as the next one is ready
)

// strike is one kill besides the server's: of a zygote, of the wrapper or the
// program of a task, or of all of these at once.
type strike struct {
	at   moment
	what string
	luck uint64 // which one of those that there are
}

// plan draws the strikes of a round.
func plan(random *rand.Rand) []strike {
	kinds := []string{victimZygote, victimZygote, victimWrapper, victimProgram, victimProgram, victimLaunch, victimAll}
	moments := []moment{before, before, before, beside, amid, after, after}
	out := make([]strike, random.IntN(6))
	for i := range out {
		out[i] = strike{moments[random.IntN(len(moments))], kinds[random.IntN(len(kinds))], random.Uint64()}
	}
	return out
}

// What may be killed.
const (
	victimZygote  = "zygote"
	victimWrapper = "wrapper"
	victimProgram = "program"
	victimLaunch  = "launch" // a wrapper that has not said yet who it is
	victimAll     = "all"
)

// striker kills what belongs to the runs of flows, and zygotes.
type striker struct {
	server *server
	book   *book

	mu    sync.Mutex
	kills map[string]int
}

// hit kills the victims of the strikes of one moment. It waits for those that are not
// there yet, but together not longer than said.
func (k *striker) hit(ctx context.Context, strikes []strike, at moment, patience time.Duration) error {
	until := time.Now().Add(patience)
	for _, s := range strikes {
		if s.at != at {
			continue
		}
		kinds := []string{s.what}
		if s.what == victimAll {
			kinds = []string{victimZygote, victimWrapper, victimProgram}
		}
		for i, what := range kinds {
			if err := k.wait(ctx, what, s.luck+uint64(i), until); err != nil {
				return fmt.Errorf("kill a %s: %w", what, err)
			}
		}
	}
	return nil
}

// wait kills one of a kind as soon as there is any.
func (k *striker) wait(ctx context.Context, what string, luck uint64, until time.Time) error {
	for {
		var found []victim
		var err error
		if what == victimZygote {
			found = k.server.zygotes()
		} else if found, err = k.server.tasks(what); err != nil {
			return err
		}
		if len(found) > 0 {
			return k.kill(what, found[luck%uint64(len(found))])
		}
		if !time.Now().Before(until) {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// kill has it in the ledger first: what fails without such a line failed by tategu's
// doing.
func (k *striker) kill(what string, v victim) error {
	if v.workload != "" {
		now := time.Now()
		line := fmt.Sprintf("%d.%09d,%s%s,,,%s", now.Unix(), now.Nanosecond(), killStep, what, v.workload)
		if err := appendLine(k.server.flows, line); err != nil {
			return err
		}
	}
	if !v.still() { // it ended meanwhile, and the number may be another's
		return nil
	}
	if syscall.Kill(v.pid, syscall.SIGKILL) != nil { // likewise
		return nil
	}
	k.book.victim(what, v.workload)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kills[what]++
	return nil
}

// victim is a process that may be killed.
type victim struct {
	pid      int
	start    string // of the process, in the kernel's own units
	workload string // "" = of none
}

func (v victim) still() bool {
	s, ok := readStat(v.pid)
	return ok && s.start == v.start && s.state != "Z"
}

// stat is what /proc says of a process.
type stat struct {
	state, start  string
	parent, group int
}

func readStat(pid int) (stat, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if err != nil || len(fields) < 20 {
		return stat{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, false
	}
	group, err := strconv.Atoi(fields[2])
	return stat{state: fields[0], start: fields[19], parent: parent, group: group}, err == nil
}

// pids gives every process of the machine, in order.
func pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// zygotes gives the parents of warm programs, and what they have forked this moment:
// no run may fail by the end of either.
func (s *server) zygotes() []victim {
	var out []victim
	for _, pid := range pids() {
		at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err != nil || !strings.HasPrefix(at, filepath.Join(s.data, "zygotes")+"/") {
			continue
		}
		if st, ok := readStat(pid); ok {
			out = append(out, victim{pid: pid, start: st.start})
		}
	}
	return out
}

// tasks gives the wrappers or the programs of the tasks of flows.
func (s *server) tasks(what string) ([]victim, error) {
	records, err := filepath.Glob(filepath.Join(s.data, "workloads", "task-*", "record.json"))
	if err != nil {
		return nil, err
	}
	var out []victim
	for _, path := range records {
		var record struct{ Workload struct{ Owner string } }
		var running struct {
			PID   int
			Start string
		}
		dir := filepath.Dir(path)
		if !readJSON(path, &record) || !strings.Contains(record.Workload.Owner, "/pipelineJobs/"+flowPrefix) {
			continue
		}
		if known := readJSON(filepath.Join(dir, "wrapper.json"), &running); known == (what == victimLaunch) {
			continue
		} else if !known {
			out = append(out, launching(dir)...)
			continue
		}
		wrapper := victim{running.PID, running.Start, filepath.Base(dir)}
		if !wrapper.still() {
			continue
		}
		if what == victimWrapper {
			out = append(out, wrapper)
			continue
		}
		for _, pid := range pids() {
			if st, ok := readStat(pid); ok && st.parent == wrapper.pid && st.group == pid {
				out = append(out, victim{pid, st.start, wrapper.workload})
			}
		}
	}
	return out, nil
}

// launching gives what was started for a workload that nobody has taken yet.
func launching(dir string) []victim {
	var out []victim
	for _, pid := range pids() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00TATEGU_WORKLOAD_DIR="+dir+"\x00")) {
			continue
		}
		if st, ok := readStat(pid); ok {
			out = append(out, victim{pid, st.start, filepath.Base(dir)})
		}
	}
	return out
}

// readJSON reads a file that may be gone, or not be there yet.
func readJSON(path string, v any) bool {
	text, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(text, v) == nil
}

// appendLine adds a line in one write.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		_ = f.Close() // the write has failed
		return err
	}
	return f.Close()
}
