package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"tategu/internal/runtime/scheduler"
)

const (
	mostZygotes   = 8
	mostFamilies  = 256
	mostFailures  = 3
	zygoteIdle    = 10 * time.Minute
	zygoteShare   = 4 // of the machine's memory: at most one part in so many
	zygoteChecks  = 15 * time.Second
	zygoteOwner   = "python-zygote" // in the scheduler's books
	zygoteRepeats = 2               // an import comes so often before a zygote is made anew for it
)

// Starts counts how Python programs were started that a zygote could have forked.
type Starts struct{ Warm, Cold, Failed int }

// nursery keeps zygotes: one for each recipe that is in use, as long as there is
// memory for it and it is asked for, or kept for an owner.
type nursery struct {
	dir      string
	idle     time.Duration
	schedule *scheduler.Scheduler
	log      *slog.Logger
	now      func() time.Time
	spawn    func(func(context.Context))
	importer importer

	wrappers   func() launcher
	namespaces func() uintptr // of programs, as flags of clone(2)

	mu       sync.Mutex
	families map[string]*family
	kept     map[string]bool // owners whose programs will start again
	starts   Starts
	seq      int
}

// family is all that is known of one recipe.
type family struct {
	recipe   recipe // of its first program
	used     time.Time
	owners   map[string]bool // of its programs, those that are kept
	uses     int
	zygote   *zygote
	name     string // that the zygote's memory is held by
	starting bool
	loaded   map[string]bool // imports of the zygote
	unfit    map[string]bool // imports that cannot be loaded beforehand
	wanted   map[string]int  // other imports of programs, and how often
	failures int             // zygotes in a row that did not start or ended by themselves
}

// get gives the zygote that can fork a program of the recipe now; nil = none can.
// One is made for those that follow.
func (n *nursery) get(r recipe, owner string) *zygote {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := r.key()
	f := n.families[key]
	if f == nil {
		n.forget()
		f = &family{recipe: r, owners: map[string]bool{}, loaded: map[string]bool{}, unfit: map[string]bool{}, wanted: map[string]int{}}
		n.families[key] = f
	}
	f.used = n.now()
	f.uses++
	if n.kept[owner] {
		f.owners[owner] = true
	}
	more := false
	for _, entry := range r.imports {
		if !f.loaded[entry] && !f.unfit[entry] {
			f.wanted[entry]++
			more = more || f.wanted[entry] >= zygoteRepeats
		}
	}
	if !f.starting && f.failures < mostFailures && (f.zygote != nil && more || f.zygote == nil && n.worth(f)) {
		f.starting = true
		n.spawn(func(ctx context.Context) { n.raise(ctx, f) })
	}
	return f.zygote
}

// worth says whether a zygote is likely to be used: at once for the first recipe
// of an environment or where it is kept, later for those that differ by a variable,
// perhaps each time.
func (n *nursery) worth(f *family) bool {
	if f.uses >= zygoteRepeats || len(f.owners) > 0 {
		return true
	}
	for _, other := range n.families {
		if other != f && other.recipe.base.dir == f.recipe.base.dir && other.recipe.kfp == f.recipe.kfp && other.recipe.bare == f.recipe.bare {
			return false
		}
	}
	return true
}

// forget drops what was not used for longest.
func (n *nursery) forget() {
	if len(n.families) < mostFamilies {
		return
	}
	oldest := ""
	for key, f := range n.families {
		if f.zygote == nil && !f.starting && (oldest == "" || f.used.Before(n.families[oldest].used)) {
			oldest = key
		}
	}
	delete(n.families, oldest)
}

// raise makes a zygote with all that the family's programs import, and lets it
// take the place of the one that there is.
func (n *nursery) raise(ctx context.Context, f *family) {
	z, entries, err := n.open(ctx, f)
	n.mu.Lock()
	defer n.mu.Unlock()
	f.starting = false
	if err != nil {
		f.failures++
		if ctx.Err() == nil {
			n.log.WarnContext(ctx, "Python programs start cold: their parent process did not start", slog.String("environment", f.recipe.base.dir), slog.Any("error", err))
		}
		return
	}
	old := f.zygote
	n.retire(f)
	if !n.room(f, z.bytes) {
		n.log.InfoContext(ctx, "Python programs start cold: there is no memory left for their parent process", slog.Int64("bytes", z.bytes))
		z.kill()
		z.watch()
		return
	}
	f.zygote = z
	f.loaded = map[string]bool{}
	for _, entry := range entries {
		f.loaded[entry] = true
		delete(f.wanted, entry)
	}
	n.log.InfoContext(ctx, "Python programs start warm", slog.String("environment", f.recipe.base.dir), slog.Any("imports", entries),
		slog.Int64("bytes", z.bytes), slog.Bool("again", old != nil))
	n.spawn(func(ctx context.Context) { n.watch(ctx, f, z) })
}

// open tries until no import is left that cannot be loaded beforehand.
func (n *nursery) open(ctx context.Context, f *family) (*zygote, []string, error) {
	for {
		n.mu.Lock()
		r := f.recipe
		r.imports = []string{}
		for _, entry := range slices.Concat(f.recipe.imports, slices.Sorted(maps.Keys(f.loaded)), slices.Sorted(maps.Keys(f.wanted))) {
			if !f.unfit[entry] && len(r.imports) < mostImports && !slices.Contains(r.imports, entry) {
				r.imports = append(r.imports, entry)
			}
		}
		n.mu.Unlock()
		z, err := openZygote(ctx, n.dir, f.recipe.base, r, n.wrappers(), n.namespaces())
		unfit, ok := errors.AsType[*unfitError](err)
		if !ok {
			return z, r.imports, err
		}
		if unfit.entry == f.recipe.kfp {
			return nil, nil, err
		}
		n.log.InfoContext(ctx, "a Python import is left to the programs", slog.String("import", unfit.entry), slog.String("why", unfit.why))
		n.mu.Lock()
		again := f.unfit[unfit.entry]
		f.unfit[unfit.entry] = true
		delete(f.wanted, unfit.entry)
		n.mu.Unlock()
		if again {
			return nil, nil, err // it was not even asked for
		}
	}
}

// room finds memory for a zygote, and gives up others for it.
func (n *nursery) room(f *family, bytes int64) bool {
	most := n.schedule.Inventory().MemoryBytes / zygoteShare
	for {
		total, count := bytes, 1
		for _, other := range n.families {
			if other.zygote != nil {
				total, count = total+other.zygote.bytes, count+1
			}
		}
		n.seq++
		name := fmt.Sprintf("%s-%d", zygoteOwner, n.seq)
		if total <= most && count <= mostZygotes && n.schedule.Reserve(name, zygoteOwner, bytes) {
			f.name = name
			return true
		}
		if !n.evict() {
			return false
		}
	}
}

// evict ends the zygote that was not used for longest, one that is kept for an owner
// after all others; false = there is none.
func (n *nursery) evict() bool {
	var oldest *family
	for _, f := range n.families {
		if f.zygote == nil {
			continue
		}
		kept := len(f.owners) > 0
		if oldest == nil || kept == (len(oldest.owners) > 0) && f.used.Before(oldest.used) || !kept && len(oldest.owners) > 0 {
			oldest = f
		}
	}
	if oldest == nil {
		return false
	}
	n.retire(oldest)
	return true
}

// retire ends a family's zygote; its watcher collects it.
func (n *nursery) retire(f *family) {
	if f.zygote == nil {
		return
	}
	f.zygote.kill()
	n.schedule.Release(f.name)
	f.zygote, f.name = nil, ""
}

// watch sees a zygote to its end.
func (n *nursery) watch(ctx context.Context, f *family, z *zygote) {
	stop := context.AfterFunc(ctx, z.kill)
	defer stop()
	z.watch()
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.zygote != z {
		return // it was to end
	}
	n.schedule.Release(f.name)
	f.zygote, f.name = nil, ""
	if f.failures++; ctx.Err() == nil {
		n.log.WarnContext(ctx, "the parent process of Python programs has ended; they start cold until there is another", slog.String("environment", f.recipe.base.dir))
	}
}

// count keeps how a program was started.
func (n *nursery) count(z *zygote, warm bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case warm:
		n.starts.Warm++
		for _, f := range n.families {
			if f.zygote == z {
				f.failures = 0
			}
		}
	case z != nil:
		n.starts.Failed++
	default:
		n.starts.Cold++
	}
}

// keep has the zygotes of an owner's programs stay while nobody asks for them; those
// that it let go stay for others, or end once they are idle.
func (n *nursery) keep(owner string, keep bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if keep {
		n.kept[owner] = true
		return
	}
	delete(n.kept, owner)
	for _, f := range n.families {
		delete(f.owners, owner)
	}
}

// tend ends what is idle, and what programs wait for the memory of.
func (n *nursery) tend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.families {
		if f.zygote != nil && len(f.owners) == 0 && n.now().Sub(f.used) >= n.idle {
			n.retire(f)
		}
	}
	n.yield()
}

// yield ends zygotes for whoever waits for memory.
func (n *nursery) yield() {
	for {
		var total int64
		for _, f := range n.families {
			if f.zygote != nil {
				total += f.zygote.bytes
			}
		}
		if total == 0 || !n.schedule.WouldHelp(total) || !n.evict() {
			return
		}
	}
}

// makeRoom is yield for who is about to wait.
func (n *nursery) makeRoom() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.yield()
}

// run tends until ctx ends.
func (n *nursery) run(ctx context.Context) {
	tick := time.NewTicker(zygoteChecks)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.tend()
		}
	}
}
