package scheduler

import (
	"fmt"
	"math"
)

// amount of each dimension; whole numbers, so that sums come out even.
type amount struct {
	cores  int64 // thousandths
	memory int64 // bytes
	gpus   int64
}

const mostCores = 1 << 40 // keeps sums from overflowing

func milli(cores float64) int64 {
	if !(cores > 0) { // NaN is not
		return 0
	}
	return int64(math.Ceil(min(cores, mostCores)*1000 - 1e-6))
}

func (a amount) plus(b amount) amount {
	return amount{a.cores + b.cores, a.memory + b.memory, a.gpus + b.gpus}
}

func (a amount) minus(b amount) amount {
	return amount{a.cores - b.cores, a.memory - b.memory, a.gpus - b.gpus}
}

// least is the smaller one in each dimension.
func (a amount) least(b amount) amount {
	return amount{min(a.cores, b.cores), min(a.memory, b.memory), min(a.gpus, b.gpus)}
}

// dimensions is a set of them.
type dimensions struct{ cores, memory, gpus bool }

func (d dimensions) any() bool { return d.cores || d.memory || d.gpus }

func (d dimensions) and(e dimensions) dimensions {
	return dimensions{d.cores && e.cores, d.memory && e.memory, d.gpus && e.gpus}
}

func (d dimensions) or(e dimensions) dimensions {
	return dimensions{d.cores || e.cores, d.memory || e.memory, d.gpus || e.gpus}
}

// short says in which dimensions need is more than a has. Who needs nothing of a
// dimension does not mind that it is overcommitted.
func (a amount) short(need amount) dimensions {
	return dimensions{
		need.cores > 0 && need.cores > a.cores, need.memory > 0 && need.memory > a.memory, need.gpus > 0 && need.gpus > a.gpus,
	}
}

// takes says of which dimensions something is needed.
func (a amount) takes() dimensions { return dimensions{a.cores > 0, a.memory > 0, a.gpus > 0} }

// share is the dominant one of a, as part of the machine all.
func (a amount) share(all amount) float64 {
	return max(part(a.cores, all.cores), part(a.memory, all.memory), part(a.gpus, all.gpus))
}

func part(a, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return float64(a) / float64(all)
}

// never says what of need the machine a does not have; "" = it could run.
func (a amount) never(need amount) string {
	switch {
	case need.gpus > a.gpus && a.gpus == 0:
		return fmt.Sprintf("%s %s asked for and this machine has none", gpus(need.gpus), is(need.gpus))
	case need.gpus > a.gpus:
		return fmt.Sprintf("%s %s asked for and this machine has %d", gpus(need.gpus), is(need.gpus), a.gpus)
	case need.cores > a.cores:
		return fmt.Sprintf("%g CPU cores are asked for and this machine has %g", float64(need.cores)/1000, float64(a.cores)/1000)
	case need.memory > a.memory:
		return fmt.Sprintf("%d MiB of memory are asked for and this machine has %d MiB", mib(need.memory), a.memory>>20)
	}
	return ""
}

func gpus(n int64) string {
	if n == 1 {
		return "1 GPU"
	}
	return fmt.Sprintf("%d GPUs", n)
}

func cores(thousandths int64) string {
	if thousandths == 1000 {
		return "1 core"
	}
	return fmt.Sprintf("%g cores", float64(thousandths)/1000)
}

func is(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// mib rounds up, so that what is asked for never reads as what there is.
func mib(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }
