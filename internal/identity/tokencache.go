package identity

import (
	"context"
	"sync"
)

// tokenCache keeps rows of tokens that were asked for: each request shows one. A row
// never changes, it only goes, and who takes one away clears the cache before they
// say so: a revoked token is dead at once. All writers of tokens are in this package
// and in this process; of several processes on one store each would have to watch it.
type tokenCache struct {
	mu    sync.RWMutex
	rows  map[string]tokenRow
	epoch uint64 // grows when it is cleared
}

// cachedTokens bounds the cache; what was asked for last is soon there again.
const cachedTokens = 4096

// get gives the row of id, by read where it is not known.
func (c *tokenCache) get(ctx context.Context, id string, read func(ctx context.Context, id string) (tokenRow, error)) (tokenRow, error) {
	c.mu.RLock()
	row, ok := c.rows[id]
	epoch := c.epoch
	c.mu.RUnlock()
	if ok {
		return row, nil
	}
	row, err := read(ctx, id)
	if err != nil {
		return tokenRow{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return row, nil // it may have gone since it was read
	}
	if c.rows == nil || len(c.rows) >= cachedTokens {
		c.rows = map[string]tokenRow{}
	}
	c.rows[id] = row
	return row, nil
}

// clear forgets all rows, after some were taken away.
func (c *tokenCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	clear(c.rows)
}
