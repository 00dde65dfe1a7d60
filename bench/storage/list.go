package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// listedCalls is how many pages of each kind are read from tategu.
const listedCalls = 100

// lists measures pages of a bucket of many objects. fake-gcs-server walks the
// whole bucket for a page, so that it gets fewer objects and fewer calls.
func (b *bench) lists(ctx context.Context) error {
	for i, s := range b.servers {
		count, calls := b.listed, listedCalls
		if i > 0 {
			count, calls = min(count, 10_000), 5
		}
		if _, err := s.many(ctx, "listed", 32, count, func(i int) string { return fmt.Sprintf("folder%03d/object%06d", i%1000, i) }); err != nil {
			return err
		}
		before, err := s.status("VmRSS")
		if err != nil {
			return err
		}
		fmt.Printf("\n%s: pages of a bucket of %d objects, %d calls each\n", s.name, count, calls)
		for _, page := range []struct{ name, query string }{
			{"1,000 objects", "maxResults=1000"},
			{"1,000 objects, from the middle", "maxResults=1000&startOffset=folder500/"},
			{"1,000 prefixes", "maxResults=1000&delimiter=/"},
			{"one folder of a prefix", "maxResults=1000&delimiter=/&prefix=folder500/"},
		} {
			var took []float64
			for range calls {
				began := time.Now()
				if err := s.list(ctx, page.query); err != nil {
					return err
				}
				took = append(took, time.Since(began).Seconds()*1000)
			}
			slices.Sort(took)
			fmt.Printf("%-32s min %6.1f ms  median %6.1f ms  p95 %6.1f ms\n", page.name, took[0], took[len(took)/2], took[len(took)*95/100])
		}
		after, err := s.status("VmRSS")
		if err != nil {
			return err
		}
		fmt.Printf("memory: %.0f MB before the lists, %.0f MB after\n", float64(before)/1e6, float64(after)/1e6)
	}
	return nil
}
