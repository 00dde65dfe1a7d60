// Package inventory says what a machine has to give to workloads: what is
// declared, else what is found. It looks once, when the server starts.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"

	"go.yaml.in/yaml/v3"
)

// Declared is the configuration's resources: each value that is set counts
// instead of the one that is found.
type Declared struct {
	Cores  float64 `yaml:"cores"`  // CPU cores for workloads
	Memory Bytes   `yaml:"memory"` // for workloads
	GPUs   *GPUs   `yaml:"gpus"`   // nil = look for them
	// Default is what a workload counts that asks for no cores or no memory.
	Default Default `yaml:"default"`
}

// Default of an ask.
type Default struct {
	Cores  float64 `yaml:"cores"`
	Memory Bytes   `yaml:"memory"`
}

// Bytes is a size: a number, or one with a unit such as 512Mi or 16Gi.
type Bytes int64

// GPUs is a list, or how many there are.
type GPUs []GPU

// GPU declares one.
type GPU struct {
	ID      string   `yaml:"id"`      // as CUDA_VISIBLE_DEVICES takes it: an index or a UUID
	Name    string   `yaml:"name"`    // for people
	Memory  Bytes    `yaml:"memory"`  // for people
	Devices []string `yaml:"devices"` // nodes of it alone; default for the index N: /dev/nvidiaN
}

// mostGPUs of one machine; more is a slip of the pen.
const mostGPUs = 256

// UnmarshalYAML reads a number or a size with a unit.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	v, err := size(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: %q is not a size such as 512Mi, 16Gi or a number of bytes", n.Line, n.Value)
	}
	*b = Bytes(v)
	return nil
}

func size(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGTi")
	shift, ok := map[string]uint{"": 0, "Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[text[len(digits):]]
	v, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || v < 0 || v > math.MaxInt64>>8>>shift {
		return 0, errors.New("not a size")
	}
	return v << shift, nil
}

// UnmarshalYAML reads a count or a list.
func (g *GPUs) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			for i := 0; item.Kind == yaml.MappingNode && i < len(item.Content); i += 2 {
				// A decoder that is told to refuse unknown keys forgets it in here.
				if key := item.Content[i]; !slices.Contains([]string{"id", "name", "memory", "devices"}, key.Value) {
					return fmt.Errorf("line %d: field %s is not one of a GPU: id, name, memory, devices", key.Line, key.Value)
				}
			}
		}
		list := []GPU{}
		if err := n.Decode(&list); err != nil {
			return err
		}
		*g = list
		return nil
	}
	count, err := strconv.Atoi(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || count < 0 || count > mostGPUs {
		return fmt.Errorf("line %d: gpus is a number up to %d or a list of {id, name, memory, devices}", n.Line, mostGPUs)
	}
	*g = make(GPUs, count)
	for i := range *g {
		(*g)[i].ID = strconv.Itoa(i)
	}
	return nil
}

// Validate finds what cannot be meant.
func (d Declared) Validate() error {
	for name, v := range map[string]float64{"resources.cores": d.Cores, "resources.default.cores": d.Default.Cores} {
		if !(v >= 0 && v <= 1<<20) { // NaN is neither
			return resource.Invalid(name, "%s is %g", name, v).WithHint("write a number of CPU cores, or leave it out to count them")
		}
	}
	if d.GPUs == nil {
		return nil
	}
	seen := map[string]bool{}
	for i, g := range *d.GPUs {
		at := fmt.Sprintf("resources.gpus[%d]", i)
		switch {
		case g.ID == "" || strings.ContainsAny(g.ID, ", \n\x00"):
			return resource.Invalid(at+".id", "%s.id is %q", at, g.ID).WithHint("write what CUDA_VISIBLE_DEVICES takes: an index such as 0, or a UUID as `nvidia-smi -L` shows it")
		case seen[g.ID]:
			return resource.Invalid(at+".id", "%s.id %q is there twice", at, g.ID)
		}
		seen[g.ID] = true
		for _, dev := range g.Devices {
			if !filepath.IsAbs(dev) {
				return resource.Invalid(at+".devices", "%s: the device node %q is not an absolute path", at, dev)
			}
		}
	}
	return nil
}

// Find gives the inventory of this machine. A driver that is there and does not
// answer is told to the log: the machine then counts as one without GPUs.
func Find(ctx context.Context, d Declared, log *slog.Logger) (runtime.Inventory, error) {
	if err := d.Validate(); err != nil {
		return runtime.Inventory{}, err
	}
	inv := runtime.Inventory{Cores: d.Cores, MemoryBytes: int64(d.Memory)}
	if inv.Cores == 0 {
		inv.Cores = cores()
	}
	if inv.MemoryBytes == 0 {
		inv.MemoryBytes = memory()
	}
	if d.GPUs == nil {
		found, err := look(ctx)
		if err != nil {
			log.WarnContext(ctx, "work that asks for GPUs will be refused", slog.Any("error", err))
		}
		inv.GPUs = found
		return inv, nil
	}
	for _, g := range *d.GPUs {
		if len(g.Devices) == 0 {
			g.Devices = node(g.ID)
		}
		inv.GPUs = append(inv.GPUs, runtime.GPU{ID: g.ID, Name: g.Name, MemoryBytes: int64(g.Memory), Devices: g.Devices})
	}
	return inv, nil
}
