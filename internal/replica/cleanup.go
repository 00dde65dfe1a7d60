package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"tategu/internal/runtime"
)

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
