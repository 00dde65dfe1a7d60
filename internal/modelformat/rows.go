package modelformat

import (
	"context"
	"fmt"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// LoadModel reads a model by name (which may end in @VERSION) and version id; no
// version means the default one.
func LoadModel(ctx context.Context, r store.Reader, name, version string) (*pb.Model, error) {
	n, err := resource.ParseName(name)
	if err != nil {
		return nil, err
	}
	if version == "" {
		version = n.Version
	}
	m := &pb.Model{}
	if version == "" {
		_, err = store.GetMessage(ctx, r, resource.KindModels, n.String(), m)
	} else {
		_, err = store.GetMessage(ctx, r, resource.KindModelVersions, resource.VersionName(n.String(), version), m)
	}
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return m, nil
}

// AliasedModel reads the version of a model, by its full name, that has an alias; a
// NotFound error where none has.
func AliasedModel(ctx context.Context, r store.Reader, model, alias string) (*pb.Model, error) {
	rows, err := r.List(ctx, store.Query{Kind: resource.KindModelVersions, Parent: model})
	if err != nil {
		return nil, fmt.Errorf("versions of a model: %w", err)
	}
	for _, row := range rows {
		m := &pb.Model{}
		if err := store.Unmarshal(row, m); err != nil {
			return nil, err
		}
		if slices.Contains(m.GetVersionAliases(), alias) {
			return m, nil
		}
	}
	return nil, resource.NotFound(resource.VersionName(model, alias))
}

// Needs turns a machine spec into resources. A machine type is a hint: it never asks
// for more than the machine has and reserves nothing, so that two replicas of an
// n1-standard-4 run on a laptop. Accelerators are meant as they are.
func Needs(m *pb.MachineSpec) runtime.Resources {
	res := runtime.Resources{GPUs: int(m.GetAcceleratorCount())}
	if cores := regexp.MustCompile(`-(\d+)$`).FindStringSubmatch(m.GetMachineType()); cores != nil {
		if n, err := strconv.Atoi(cores[1]); err == nil {
			res.Cores, res.Hint = float64(min(n, goruntime.NumCPU())), true
		}
	}
	return res
}
