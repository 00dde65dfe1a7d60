package main

import (
	"os"
	"strings"
)

// taskLedger is what programs wrote of themselves, with a line for each kill.
type taskLedger struct {
	begun, committed map[attempt]int
	replicas         map[string]int // starts of each replica's workload
	across           int            // begun before a kill and committed after it, once a kill
}

// readLedger reads the file of the tasks.
func readLedger(path string) (*taskLedger, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &taskLedger{begun: map[attempt]int{}, committed: map[attempt]int{}, replicas: map[string]int{}}
	running := map[attempt]int{} // kills since the begin
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		switch {
		case fields[0] == "kill":
			for a := range running {
				running[a]++
			}
		case fields[0] == "replica" && len(fields) == 2:
			l.replicas[fields[1]]++
		case len(fields) == 4:
			a := attempt{fields[1], fields[2], fields[3]}
			if fields[0] == "begin" {
				l.begun[a]++
				running[a] = 0
				continue
			}
			l.committed[a]++
			l.across += running[a]
			delete(running, a)
		}
	}
	return l, nil
}

// expect takes one attempt out of the ledger after comparing: it began once, and
// committed once or not at all.
func (l *taskLedger) expect(b *book, a attempt, commits bool) {
	begun, committed := l.begun[a], l.committed[a]
	delete(l.begun, a)
	delete(l.committed, a)
	switch {
	case begun > 1 || committed > 1 || committed == 1 && !commits:
		b.isDouble("run %s, task %s, attempt %s: began %d times, committed %d times", a.run, a.task, a.number, begun, committed)
	case begun == 0 || commits && committed == 0:
		b.isLost("run %s, task %s, attempt %s: began %d times, committed %d times", a.run, a.task, a.number, begun, committed)
	}
}

// rest tells of programs that the API knows nothing of.
func (l *taskLedger) rest(b *book) {
	for a, n := range l.begun {
		b.isDouble("run %s, task %s, attempt %s: began %d times and the API does not show it", a.run, a.task, a.number, n)
	}
}
