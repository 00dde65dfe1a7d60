package mar

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ParseConfig reads a model-config.yaml. Keys that are no server's are the handler's.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return c, fmt.Errorf("no YAML: %w", err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return c, nil
	}
	if err := doc.Content[0].Decode(&c.Raw); err != nil {
		return c, fmt.Errorf("no mapping of keys to values: %w", err)
	}
	r := reader{raw: c.Raw}
	c.MinWorkers, c.MaxWorkers = r.count("minWorkers", 0), r.count("maxWorkers", 0)
	c.BatchSize, c.JobQueueSize = r.count("batchSize", 1), r.count("jobQueueSize", 1)
	c.MaxBatchDelay = r.span("maxBatchDelay", time.Millisecond)
	c.ResponseTimeout, c.StartupTimeout = r.span("responseTimeout", time.Second), r.span("startupTimeout", time.Second)
	c.MaxRetryTimeout, c.ClientTimeout = r.span("maxRetryTimeoutInSec", time.Second), r.span("clientTimeoutInMills", time.Millisecond)
	c.UseJobTicket, c.AsyncCommunication, c.UseVenv = r.flag("useJobTicket"), r.flag("asyncCommunication"), r.flag("useVenv")
	c.ContinuousBatching, c.SequenceBatching = r.flag("continuousBatching"), r.flag("sequenceBatching")
	c.DeviceType = r.choice("deviceType", "none", "cpu", "gpu", "neuron")
	c.ParallelType = r.choice("parallelType", "none", "pp", "tp", "pptp", "custom")
	if n := r.count("parallelLevel", 1); n != nil {
		c.ParallelLevel = *n
	}
	if d := r.span("sequenceMaxIdleMSec", time.Millisecond); d != nil {
		c.SequenceMaxIdle = *d
	}
	if d := r.span("sequenceTimeoutMSec", time.Millisecond); d != nil {
		c.SequenceTimeout = *d
	}
	if n := r.count("maxNumSequence", 1); n != nil {
		c.MaxNumSequence = *n
	}
	if n := r.count("maxSequenceJobQueueSize", 1); n != nil {
		c.MaxSequenceQueue = *n
	}
	c.DeviceIDs, c.TorchRun = r.ids("deviceIds"), r.options("torchrun")
	return c, r.err
}

// reader takes values of their types; the first that has another is its error.
type reader struct {
	raw map[string]any
	err error
}

func (r *reader) fail(key, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %.80s is not %s", key, fmt.Sprint(r.raw[key]), want)
	}
}

// whole reads a whole number; files often quote them.
func whole(v any) (int64, bool) {
	switch v := v.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	}
	return 0, false
}

func (r *reader) count(key string, least int) *int {
	v, ok := r.raw[key]
	if !ok || v == nil {
		return nil
	}
	n, ok := whole(v)
	if !ok || n < int64(least) || n > math.MaxInt32 {
		r.fail(key, fmt.Sprintf("a whole number from %d", least))
		return nil
	}
	i := int(n)
	return &i
}

func (r *reader) span(key string, unit time.Duration) *time.Duration {
	v, ok := r.raw[key]
	if !ok || v == nil {
		return nil
	}
	n, ok := whole(v)
	if !ok || n < 0 || n > math.MaxInt64/int64(unit)/2 {
		r.fail(key, "a whole number that is not negative")
		return nil
	}
	d := time.Duration(n) * unit
	return &d
}

func (r *reader) flag(key string) bool {
	switch v := r.raw[key].(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		if b, err := strconv.ParseBool(strings.ToLower(v)); err == nil {
			return b
		}
	}
	r.fail(key, "true or false")
	return false
}

func (r *reader) choice(key string, values ...string) string {
	v, ok := r.raw[key]
	if !ok || v == nil {
		return ""
	}
	s, ok := v.(string)
	if s = strings.ToLower(s); !ok || !slices.Contains(values, s) {
		r.fail(key, "one of "+strings.Join(values, ", "))
		return ""
	}
	if s == "none" {
		return ""
	}
	return s
}

func (r *reader) ids(key string) (ids []int) {
	v, ok := r.raw[key]
	if !ok || v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		r.fail(key, "a list of numbers")
		return nil
	}
	for _, v := range list {
		n, ok := whole(v)
		if !ok || n < 0 || n > 1<<16 {
			r.fail(key, "a list of numbers")
			return nil
		}
		ids = append(ids, int(n))
	}
	return ids
}

func (r *reader) options(key string) map[string]string {
	v, ok := r.raw[key]
	if !ok || v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		r.fail(key, "a mapping of options")
		return nil
	}
	options := make(map[string]string, len(m))
	for k, v := range m {
		options[k] = fmt.Sprint(v)
	}
	return options
}
