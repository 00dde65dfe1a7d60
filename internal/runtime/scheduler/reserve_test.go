package scheduler_test

import (
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"
)

// TestReserve: memory that is taken beside programs counts, yields, and comes back.
func TestReserve(t *testing.T) {
	t.Parallel()
	s := scheduler.New(runtime.Inventory{Cores: 4, MemoryBytes: 1000}, time.Now, scheduler.Options{})
	if !s.Reserve("z", "owner", 300) || s.Reserve("z", "owner", 300) || s.Reserve("y", "owner", 701) {
		t.Fatal("what is free is not what can be reserved")
	}
	if got := s.Snapshot(); got.Used.MemoryBytes != 300 || got.Used.Cores != 0 || len(got.Holders) != 1 || got.Holders[0].Ask.Owner != "owner" {
		t.Errorf("snapshot %+v", got)
	}
	s.Enqueue(scheduler.Ask{ID: "a", Resources: runtime.Resources{Cores: 1, MemoryBytes: 900}, Created: time.Now()})
	if _, waits := s.Place("a"); !waits || !s.WouldHelp(300) || s.WouldHelp(199) {
		t.Fatal("it has to wait for what was reserved")
	}
	if s.Reserve("x", "owner", 600) {
		t.Error("a reservation is not taken from who waits")
	}
	s.Release("z")
	if _, err := s.Wait(t.Context(), "a"); err != nil || s.WouldHelp(1000) {
		t.Errorf("it still waits: %v", err)
	}
	// The other one would leave it short, if it waited.
	if !s.Reserve("x", "owner", 100) {
		t.Error("what is left can be reserved")
	}
}
