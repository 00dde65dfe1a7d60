package app

import (
	"time"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// Serving is what holds for all deployed models. The zero value of each is its
// default, in package serving.
type Serving struct {
	Idle        time.Duration `yaml:"idle"`        // without requests until zero, where min_replica_count is 0
	DownDelay   time.Duration `yaml:"downDelay"`   // how long fewer replicas must have been enough
	Drain       time.Duration `yaml:"drain"`       // for the requests of a replica that goes
	Concurrency int           `yaml:"concurrency"` // requests at a time of one replica, where its model does not say
	Queue       int           `yaml:"queue"`       // requests of a deployed model that wait at most
	QueueBytes  int64         `yaml:"queueBytes"`  // their bytes
}

func (s Serving) validate() error {
	for name, d := range map[string]time.Duration{"idle": s.Idle, "downDelay": s.DownDelay, "drain": s.Drain} {
		if d < 0 || name == "idle" && d > 0 && d < time.Second {
			return resource.Invalid("serving."+name, "serving.%s is %v", name, d).WithHint("write a duration such as 30s, of a second or more")
		}
	}
	for name, n := range map[string]int64{"concurrency": int64(s.Concurrency), "queue": int64(s.Queue), "queueBytes": s.QueueBytes} {
		if n < 0 {
			return resource.Invalid("serving."+name, "serving.%s is %d", name, n).WithHint("leave it out for the default")
		}
	}
	return nil
}

func (s Serving) scaling() serving.Scaling {
	return serving.Scaling{
		Idle: s.Idle, DownDelay: s.DownDelay, Drain: s.Drain, Concurrency: s.Concurrency, Queue: s.Queue, QueueBytes: s.QueueBytes,
	}
}
