package app

import (
	"path/filepath"
	"time"

	"tategu/internal/resource"
	"tategu/internal/vector"
	vectorlocal "tategu/internal/vector/local"
)

// Vectors is what holds for all indexes of vector search.
type Vectors struct {
	// Idle is how long an index without queries stays in memory; 0 = 15 minutes.
	Idle time.Duration `yaml:"idle"`
	// MemoryBytes bounds the memory and mapped files of all indexes; 0 = no bound.
	MemoryBytes int64 `yaml:"memoryBytes"`
}

func (v Vectors) validate() error {
	if v.Idle < 0 || v.Idle > 0 && v.Idle < time.Second {
		return resource.Invalid("vectors.idle", "vectors.idle is %v", v.Idle).WithHint("write a duration such as 10m, of a second or more")
	}
	if v.MemoryBytes < 0 {
		return resource.Invalid("vectors.memoryBytes", "vectors.memoryBytes is %d", v.MemoryBytes).WithHint("leave it out for no bound")
	}
	return nil
}

func (m *Main) openVectors() (*vector.Engine, error) {
	backend, err := vectorlocal.New(vectorlocal.Config{
		Store: m.store, Contents: m.blobs.Contents(), Cache: filepath.Join(m.cfg.Cache, "vectors"), Idle: m.cfg.Vectors.Idle,
		Memory: m.cfg.Vectors.MemoryBytes, Log: m.log, Now: m.now,
	})
	if err != nil {
		return nil, err
	}
	return vector.New(vector.EngineConfig{Store: m.store, Objects: m.blobs, Backend: backend, Log: m.log, Now: m.now}), nil
}
