package load

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Advice is what a deployment should be given.
type Advice struct {
	// PerReplica is the rate that one replica should be given: WorkShare of the knee.
	PerReplica float64
	// Replicas that the wanted rate takes; 0 when no rate was wanted.
	Replicas int
	// Concurrency is how many requests a replica works on at a time when it is given as
	// many as it can do, without those that only wait in it; at least 2, so that the next
	// one is there when one ends.
	Concurrency int
	// Batch is how many instances a request should carry; 0 = it was not measured.
	Batch int
}

// Advise reads a result. wanted is a rate in requests a second, 0 = none.
func (r *Result) Advise(wanted float64, sizes []Size) Advice {
	var a Advice
	if r.At != nil {
		replicas := float64(max(1, r.At.Replicas))
		a.PerReplica = WorkShare * r.Knee / replicas
		a.Concurrency = max(leastConcurrency, int(math.Ceil(r.busy()*(1-nearKnee)/replicas)))
		if wanted > 0 {
			a.Replicas = int(math.Ceil(wanted / a.PerReplica))
		}
	}
	a.Batch = bestSize(sizes, r.Limit)
	return a
}

const (
	leastConcurrency = 2
	nearKnee         = 0.03 // the knee may be so much above what can be done
)

// busy is how many requests are worked on at the knee by Little's law: those at the
// working rate hardly wait for each other.
func (r *Result) busy() float64 {
	if r.Work != nil {
		return r.Work.Busy * r.Knee / r.Work.Rate
	}
	return r.Knee * r.Alone.P50.Seconds()
}

// Size is how long a request with several instances takes a caller who is alone.
type Size struct {
	Instances int
	Median    time.Duration
	Failure   string // it was refused, in the server's words
}

// nearBest is how much more an instance may cost than in the best size: larger
// requests keep other callers waiting.
const nearBest = 1.1

// bestSize is the smallest request within the limit in which an instance costs nearly
// the least.
func bestSize(sizes []Size, limit time.Duration) int {
	each := func(s Size) float64 { return float64(s.Median) / float64(s.Instances) }
	fits := func(s Size) bool { return s.Failure == "" && s.Median <= limit }
	least := math.Inf(1)
	for _, s := range sizes {
		if fits(s) {
			least = math.Min(least, each(s))
		}
	}
	for _, s := range sizes {
		if fits(s) && each(s) <= nearBest*least {
			return s.Instances
		}
	}
	return 0
}

// Told is a duration with three digits.
func Told(d time.Duration) string {
	switch v := d.Abs(); {
	case v >= 100*time.Second:
		return d.Round(time.Second).String()
	case v >= time.Second:
		return digits(d.Seconds()) + "s"
	case v >= time.Millisecond:
		return digits(d.Seconds()*1e3) + "ms"
	default:
		return digits(d.Seconds()*1e6) + "µs"
	}
}

// Rate is one with three digits, or whole.
func Rate(r float64) string {
	if r >= 100 {
		return strconv.FormatFloat(math.Round(r), 'f', 0, 64)
	}
	return digits(r)
}

func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
