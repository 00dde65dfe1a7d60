package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tategu/internal/runtime"
)

// running gives the places of a set's replicas that have not ended, in order.
func running(ctx context.Context, rt runtime.Runtime, name string) ([]int, error) {
	all, err := rt.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the replicas of %s: %w", name, err)
	}
	var places []int
	for _, inst := range all {
		rest, ok := strings.CutPrefix(inst.ID(), name+"-")
		index, _, more := strings.Cut(rest, "-")
		i, err := strconv.Atoi(index)
		if ok && more && err == nil && i >= 0 && inst.Status().Phase != runtime.Ended && !slices.Contains(places, i) {
			places = append(places, i)
		}
	}
	slices.Sort(places)
	return places, nil
}

// Running is the number of a set's replicas that an earlier server left running.
func Running(ctx context.Context, rt runtime.Runtime, name string) (int, error) {
	places, err := running(ctx, rt, name)
	return len(places), err
}

// Cleanup ends whatever runs under a set's name, for an owner that no longer
// keeps the set. Without a runtime nothing can run.
func Cleanup(ctx context.Context, rt runtime.Runtime, name string) error {
	if rt == nil {
		return nil
	}
	all, err := rt.List(ctx)
	if err != nil {
		return fmt.Errorf("clean up %s: %w", name, err)
	}
	var errs []error
	for _, inst := range all {
		if !strings.HasPrefix(inst.ID(), name+"-") {
			continue
		}
		err := inst.Stop(ctx, stopGrace)
		if err == nil {
			_, err = inst.Wait(ctx)
		}
		if err == nil {
			err = inst.Release(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("clean up %s: %w", inst.ID(), err))
		}
	}
	return errors.Join(errs...)
}
