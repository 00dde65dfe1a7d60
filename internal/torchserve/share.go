package torchserve

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// divide gives threads to the workers of several models, so that all of them together
// have no more than there are cores, as long as one each is not more already: the model
// whose workers have the fewest together gets the next ones. workers are those of each
// model, at least 1; most is the bound of one worker's threads, 0 = none.
func divide(cores int, workers []int, most int) (threads []int) {
	threads = make([]int, len(workers))
	for i, n := range workers {
		threads[i] = 1
		cores -= n
	}
	for {
		next, fewest := -1, 0
		for i, n := range workers {
			if n <= cores && (most == 0 || threads[i] < most) && (next < 0 || n*threads[i] < fewest) {
				next, fewest = i, n*threads[i]
			}
		}
		if next < 0 {
			return threads
		}
		threads[next]++
		cores -= workers[next]
	}
}

// activeFor is how long a model that had a request counts when cores are divided.
const activeFor = 5 * time.Second

// cores is how many the server's workers may use.
func (s *Server) cores() int {
	if s.cfg.Cores > 0 {
		return s.cfg.Cores
	}
	return runtime.GOMAXPROCS(0) // a container may have fewer than the machine
}

// mostThreads of a worker, as the operator's environment says; 0 = it does not.
func (s *Server) mostThreads() int {
	most := 0
	for _, e := range s.workerEnv() { // the last one counts
		if v, ok := strings.CutPrefix(e, "OMP_NUM_THREADS="); ok {
			v, _, _ = strings.Cut(v, ",") // of the first level
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if most = max(n, 0); err != nil {
				most = 0
			}
		}
	}
	return most
}

// allVersions gives every version, in the order of their names.
func (s *Server) allVersions() (all []*version) {
	s.mu.Lock()
	for _, f := range s.models {
		for _, v := range f.versions {
			all = append(all, v)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *version) int {
		return strings.Compare(a.name+"/"+a.id, b.name+"/"+b.id)
	})
	return all
}

// share divides the cores among the models that have requests. It is called when one
// begins or ceases to have them, and when a worker of one comes or goes.
func (s *Server) share() {
	s.shareMu.Lock()
	defer s.shareMu.Unlock()
	var active []*version
	var workers []int
	for _, v := range s.allVersions() {
		if n := v.readyWorkers(); n > 0 && v.active.Load() {
			active, workers = append(active, v), append(workers, n)
		}
	}
	for i, n := range divide(s.cores(), workers, s.mostThreads()) {
		active[i].setThreads(n)
	}
}

// threadsFor a worker of a version that starts, as if all that it shall have were there
// and had requests.
func (s *Server) threadsFor(v *version) int {
	v.mu.Lock()
	workers := []int{max(1, len(v.slots))}
	v.mu.Unlock()
	for _, o := range s.allVersions() {
		if n := o.readyWorkers(); o != v && n > 0 && o.active.Load() {
			workers = append(workers, n)
		}
	}
	return divide(s.cores(), workers, s.mostThreads())[0]
}

// readyWorkers counts those that serve.
func (v *version) readyWorkers() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, w := range v.slots {
		w.mu.Lock()
		if w.state == WorkerReady {
			n++
		}
		w.mu.Unlock()
	}
	return n
}

func (v *version) setThreads(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.threads = n
	for _, w := range v.slots {
		w.mu.Lock()
		if w.process != nil {
			w.process.SetThreads(n) // one that cannot has what it was started with
		}
		w.mu.Unlock()
	}
}
