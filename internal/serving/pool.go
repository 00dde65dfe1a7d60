package serving

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// pool is the room that several deployed models share: so many replicas, of all of
// them together. It decides who has them; it starts and stops none. Its lock is taken
// under those of scalers, and it never takes theirs: who shall leave is told by a poke.
type pool struct {
	mu       sync.Mutex
	name     string
	min, max int
	machine  *pb.MachineSpec
	members  map[*scaler]*place
}

// place is what a member has of a pool.
type place struct {
	title string    // of its deployed model
	has   int       // replicas that it may have
	going int       // that have not ended yet
	asks  int       // that it would like to have
	busy  bool      // has requests
	last  time.Time // of its last request
	leave string    // who needs its room; "" = it may stay
	left  string    // for whom it left last, until it is back
	runs  bool      // it can be asked to leave: its deployment is done
}

func (p *pool) configure(res *pb.DedicatedResources) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.min, p.max, p.machine = int(res.GetMinReplicaCount()), int(max(1, res.GetMinReplicaCount(), res.GetMaxReplicaCount())), res.GetMachineSpec()
	p.poke(nil)
}

// resources gives the limits of one member, and the machine of each replica.
func (p *pool) resources() (most int, machine *pb.MachineSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.max, p.machine
}

// used counts the replicas of all members, those that are ending too.
func (p *pool) used() (n int) {
	for _, m := range p.members {
		n += m.has + m.going
	}
	return n
}

// poke has members look at their load again: one, or all. The caller holds the lock.
func (p *pool) poke(only *scaler) {
	for s := range p.members {
		if only != nil && s != only {
			continue
		}
		select {
		case s.poked <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// join makes a deployed model a member, with the replicas that it starts with. One
// that was running before has them; a new one needs room, if need be that of another
// which is idle.
func (p *pool) join(s *scaler, title string, count int, running bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	over := p.used() + count - p.max
	var leaving []*scaler
	for _, v := range p.idle(s) {
		if over <= 0 || running {
			break
		}
		if p.members[v].leave == "" {
			leaving, over = append(leaving, v), over-p.members[v].has
		}
	}
	if over > 0 && !running {
		return resource.Errorf(codes.ResourceExhausted, "the pool %s is full: %s", short(p.name), p.tell()).WithCause(resource.CauseResource).WithResource(p.name).
			WithHint("raise its dedicated_resources.max_replica_count, or deploy when one of its models is idle")
	}
	p.members[s] = &place{title: title, has: count, asks: count, last: s.now()}
	for _, v := range leaving {
		p.members[v].leave = title
		p.poke(v)
	}
	return nil
}

// open lets a member be asked to leave: its deployment is done.
func (p *pool) open(s *scaler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.members[s]; m != nil {
		m.runs = true
	}
}

func (p *pool) quit(s *scaler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.members, s)
	p.poke(nil)
}

// ended tells how many replicas a member still has, those that are ending too.
func (p *pool) ended(s *scaler, alive int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.members[s]
	if m == nil {
		return
	}
	going := max(0, alive-m.has)
	if going < m.going {
		p.poke(nil)
	}
	m.going = min(m.going, going)
}

// settle gives how many of the wanted replicas a member may have, and why not all, or
// more. A model without any comes first: for it the least recently used idle model
// leaves, or else the one with the most replicas gives one up.
func (p *pool) settle(s *scaler, want int, active bool, last time.Time) (granted int, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.members[s]
	if m == nil {
		return want, ""
	}
	m.asks, m.busy = want, active
	if last.After(m.last) {
		m.last = last
	}
	if m.leave != "" {
		if why, gone := p.makeRoom(m); gone {
			return m.has, why
		}
	}
	if over := p.over(); over > 0 && m.has > 0 { // there may be fewer than there were
		least := 0
		if active {
			least = 1
		}
		want = min(want, max(least, m.has-over))
	}
	switch {
	case want == 0 && m.has == 0 && m.left != "":
		return 0, "; it made room in the pool for " + m.left
	case want <= m.has:
		return p.shrink(m, want)
	}
	m.left = ""
	first := m.has == 0
	free := max(0, p.max-p.used())
	if !first && p.waiting() {
		free = 0 // what is free is for who has none
	}
	take := min(want-m.has, free)
	m.has += take
	if m.has == want {
		return want, ""
	}
	if m.has > 0 {
		return m.has, "; the pool has no more room: " + p.tell()
	}
	return 0, p.evict(s, m)
}

// makeRoom has a member leave that was asked to. One that has requests by now stays,
// with one replica less.
func (p *pool) makeRoom(m *place) (why string, gone bool) {
	by := m.leave
	m.leave = ""
	if m.busy && m.has <= 1 {
		p.poke(nil) // somebody else may go
		return "", false
	}
	left := 0
	if m.busy {
		left = m.has - 1
	} else {
		m.left = by
	}
	m.going += m.has - left
	m.has = left
	m.asks = left // the next look asks anew
	return "; it made room in the pool for " + by, true
}

// over is how many more replicas there are to stay than there may be.
func (p *pool) over() int {
	n := -p.max
	for _, m := range p.members {
		if m.leave == "" {
			n += m.has
		}
	}
	return n
}

// shrink takes replicas back but keeps the pool's least.
func (p *pool) shrink(m *place, want int) (granted int, why string) {
	all := 0
	for _, other := range p.members {
		all += other.has
	}
	if keep := min(m.has, want+max(0, p.min-(all-m.has+want))); keep > want {
		want, why = keep, fmt.Sprintf("; the pool keeps %d (min_replica_count)", p.min)
	}
	m.going += m.has - want
	if m.has != want {
		p.poke(nil)
	}
	m.has = want
	return want, why
}

// waiting reports a member that has no replica and wants one.
func (p *pool) waiting() bool {
	for _, m := range p.members {
		if m.has == 0 && m.asks > 0 {
			return true
		}
	}
	return false
}

// idle gives the members that have replicas and no requests, the least recently used
// first, but for one.
func (p *pool) idle(but *scaler) []*scaler {
	var idle []*scaler
	for s, m := range p.members {
		if s != but && m.runs && m.has > 0 && !m.busy {
			idle = append(idle, s)
		}
	}
	slices.SortFunc(idle, func(a, b *scaler) int {
		return cmp.Or(p.members[a].last.Compare(p.members[b].last), strings.Compare(p.members[a].title, p.members[b].title))
	})
	return idle
}

// evict asks a member to leave for another, unless room is on its way already.
func (p *pool) evict(s *scaler, m *place) (why string) {
	coming, waiting := 0, 0
	for _, other := range p.members {
		coming += other.going
		if other.leave != "" {
			coming++
		}
		if other.has == 0 && other.asks > 0 {
			waiting++
		}
	}
	if coming >= waiting {
		return "; it waits for room in the pool: " + p.tell()
	}
	victims := p.idle(s)
	if len(victims) == 0 {
		victims = p.largest(s)
	}
	for _, v := range victims {
		if p.members[v].leave == "" {
			p.members[v].leave = m.title
			p.poke(v)
			return fmt.Sprintf("; %s leaves the pool for it", p.members[v].title)
		}
	}
	return "; it waits for room in the pool, where all are busy: " + p.tell()
}

// largest gives the member with the most replicas, if it has several.
func (p *pool) largest(but *scaler) []*scaler {
	var most *scaler
	for s, m := range p.members {
		if s != but && m.runs && m.has > 1 && (most == nil || m.has > p.members[most].has) {
			most = s
		}
	}
	if most == nil {
		return nil
	}
	return []*scaler{most}
}

// tell says who has what. The caller holds the lock.
func (p *pool) tell() string {
	var has []string
	for _, m := range p.members {
		if n := m.has + m.going; n > 0 {
			has = append(has, fmt.Sprintf("%s has %d", m.title, n))
		}
	}
	slices.Sort(has)
	return fmt.Sprintf("%d of %d replicas in use (%s)", p.used(), p.max, strings.Join(has, ", "))
}

// status is for people.
func (p *pool) status() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf(" Pool %s: %s.", short(p.name), p.tell())
}

func short(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// pools are those that deployed models are in, by name.
type pools struct {
	mu     sync.Mutex
	byName map[string]*pool
}

// poolOf gives the pool of a deployed model as its row says it is; nil = it shares none.
func (e *Engine) poolOf(ctx context.Context, dm *pb.DeployedModel) (*pool, error) {
	name := dm.GetSharedResources()
	if name == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	row := &pb.DeploymentResourcePool{}
	if _, err := store.GetMessage(ctx, e.cfg.Store, resource.KindDeploymentResourcePools, name, row); err != nil {
		return nil, fmt.Errorf("pool of deployed model %s: %w", dm.GetId(), err)
	}
	e.pools.mu.Lock()
	defer e.pools.mu.Unlock()
	p := e.pools.byName[name]
	if p == nil {
		p = &pool{name: name, members: map[*scaler]*place{}}
		e.pools.byName[name] = p
	}
	p.configure(row.GetDedicatedResources())
	return p, nil
}

// repool takes a changed or deleted pool over.
func (e *Engine) repool(ctx context.Context, name string, deleted bool) error {
	e.pools.mu.Lock()
	defer e.pools.mu.Unlock()
	p := e.pools.byName[name]
	switch {
	case p == nil:
		return nil
	case deleted:
		delete(e.pools.byName, name)
		return nil
	}
	row := &pb.DeploymentResourcePool{}
	_, err := store.GetMessage(ctx, e.cfg.Store, resource.KindDeploymentResourcePools, name, row)
	if resource.IsNotFound(err) {
		return nil // the next change says so
	}
	if err != nil {
		return err
	}
	p.configure(row.GetDedicatedResources())
	return nil
}
