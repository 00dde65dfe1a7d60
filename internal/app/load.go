package app

import (
	"fmt"
	"strings"

	"tategu/internal/api/admin"
	"tategu/internal/api/console"
	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"
)

// queue is the scheduler's state as administrators read it.
func (m *Main) queue() admin.Queue {
	s := m.schedule.Snapshot()
	total := runtime.Resources{Cores: s.Total.Cores, MemoryBytes: s.Total.MemoryBytes, GPUs: len(s.Total.GPUs)}
	out := admin.Queue{Total: amountOf(total), Used: amountOf(s.Used), GPUs: []admin.GPU{}, Running: []admin.QueueEntry{}, Waiting: []admin.QueueEntry{}}
	holders := map[string]string{}
	for _, h := range s.Holders {
		e := entryOf(h.Ask, h.Count)
		e.Since = h.Since
		for _, g := range h.GPUs {
			e.GPUIDs = append(e.GPUIDs, g.ID)
			holders[g.ID] = h.Ask.ID
		}
		out.Running = append(out.Running, e)
	}
	for _, w := range s.Waiters {
		e := entryOf(w.Ask, w.Count)
		e.Position, e.Waits, e.Since = w.Queue.Position, w.Queue.Waits, w.Queue.Since
		out.Waiting = append(out.Waiting, e)
	}
	for _, g := range s.Total.GPUs {
		out.GPUs = append(out.GPUs, admin.GPU{ID: g.ID, Name: g.Name, MemoryBytes: g.MemoryBytes, Workload: holders[g.ID]})
	}
	return out
}

func amountOf(r runtime.Resources) admin.Amount {
	return admin.Amount{Cores: r.Cores, MemoryBytes: r.MemoryBytes, GPUs: r.GPUs}
}

func entryOf(a scheduler.Ask, count runtime.Resources) admin.QueueEntry {
	return admin.QueueEntry{Workload: a.ID, Owner: a.Owner, Project: a.Project, Priority: a.Priority.String(), Asks: amountOf(count)}
}

// machine is what the pages show of the scheduler.
type machine struct{ *scheduler.Scheduler }

// Load implements console.Machine.
func (m machine) Load() console.Load {
	s := m.Snapshot()
	out := console.Load{Running: len(s.Holders), Waiting: len(s.Waiters)}
	parts := []string{
		fmt.Sprintf("%g of %g cores", s.Used.Cores, s.Total.Cores), fmt.Sprintf("%d of %d MiB", s.Used.MemoryBytes>>20, s.Total.MemoryBytes>>20),
	}
	if n := len(s.Total.GPUs); n > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d GPUs", s.Used.GPUs, n))
	}
	out.InUse = strings.Join(parts, ", ")
	for _, w := range s.Waiters {
		q, waits := m.Place(w.Ask.ID) // names no work of other projects
		if !waits {
			continue
		}
		asks := fmt.Sprintf("%g cores, %d MiB", w.Count.Cores, w.Count.MemoryBytes>>20)
		if w.Count.GPUs > 0 {
			asks += fmt.Sprintf(", %d GPUs", w.Count.GPUs)
		}
		out.Queue = append(out.Queue, console.Waiter{Workload: w.Ask.ID, Owner: w.Ask.Owner, Project: w.Ask.Project, Asks: asks, Queue: q})
	}
	return out
}
