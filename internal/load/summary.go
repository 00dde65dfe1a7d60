package load

import "time"

// Summary is a result as JSON: times in milliseconds, rates in requests a second.
type Summary struct {
	KneeRate   float64       `json:"knee_rate"`
	BeyondRate float64       `json:"beyond_rate,omitempty"` // the lowest that did not hold
	Confirmed  bool          `json:"confirmed"`
	Stopped    string        `json:"stopped,omitempty"`
	LimitMS    float64       `json:"limit_ms"`
	AloneP50MS float64       `json:"alone_p50_ms"`
	AloneP99MS float64       `json:"alone_p99_ms"`
	Steps      []SummaryStep `json:"steps"`
	Sizes      []SummarySize `json:"batches,omitempty"`

	RatePerReplica float64 `json:"rate_per_replica"`
	Replicas       int     `json:"replicas,omitempty"`
	Concurrency    int     `json:"concurrency,omitempty"`
	Batch          int     `json:"batch,omitempty"`
}

// SummaryStep is a rate that was tried.
type SummaryStep struct {
	Purpose  Purpose        `json:"purpose"`
	Rate     float64        `json:"rate"`
	Sent     int            `json:"sent"`
	Answered int            `json:"answered"`
	Good     int            `json:"good"`
	Failed   map[string]int `json:"failed,omitempty"`
	P50MS    float64        `json:"p50_ms"`
	P99MS    float64        `json:"p99_ms"`
	MaxMS    float64        `json:"max_ms"`
	Replicas int            `json:"replicas,omitempty"`
	Held     bool           `json:"held"`
	Why      string         `json:"why,omitempty"` // it did not
}

// SummarySize is a number of instances in a request.
type SummarySize struct {
	Instances int     `json:"instances"`
	MedianMS  float64 `json:"median_ms"`
	Failure   string  `json:"failure,omitempty"`
}

// Summarize makes one.
func Summarize(r *Result, a Advice, sizes []Size) Summary {
	out := Summary{
		KneeRate: r.Knee, BeyondRate: r.Beyond, Confirmed: r.Confirmed, Stopped: r.Stopped,
		LimitMS: millis(r.Limit), AloneP50MS: millis(r.Alone.P50), AloneP99MS: millis(r.Alone.P99),
		RatePerReplica: a.PerReplica, Replicas: a.Replicas, Concurrency: a.Concurrency, Batch: a.Batch,
		Steps: make([]SummaryStep, len(r.Steps)),
	}
	for i, s := range r.Steps {
		out.Steps[i] = SummaryStep{
			Purpose: s.Purpose, Rate: s.Rate, Sent: s.Sent, Answered: s.Answered, Good: s.Good, Failed: s.Failed,
			P50MS: millis(s.P50), P99MS: millis(s.P99), MaxMS: millis(s.Max), Replicas: s.Replicas, Held: s.Held(), Why: s.Why,
		}
	}
	for _, s := range sizes {
		out.Sizes = append(out.Sizes, SummarySize{Instances: s.Instances, MedianMS: millis(s.Median), Failure: s.Failure})
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
