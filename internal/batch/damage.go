package batch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"

	"tategu/internal/batch/score"
	"tategu/internal/resource"
)

// undamaged checks objects that workers read from files against the checksums with
// which they were stored, as whoever reads them here does.
func (r *run) undamaged(ctx context.Context) error {
	sums, sent := make([]checksum, len(r.plan.Inputs)), make([]bool, len(r.plan.Inputs))
	r.mu.Lock()
	for n, s := range r.plan.Sections {
		read := r.finished[n].Sums
		for i, p := range s {
			if i >= len(read) || read[i] == score.Sent {
				sent[p.Input] = true
			} else {
				sums[p.Input].add(uint32(read[i]), p.To-p.From)
			}
		}
	}
	r.mu.Unlock()
	for i, in := range r.plan.Inputs {
		if !sent[i] && uint32(sums[i]) != in.CRC32C {
			return r.damaged(ctx, in)
		}
	}
	return nil
}

// damaged says what is wrong with an object, by reading it once more.
func (r *run) damaged(ctx context.Context, in input) error {
	_, rc, err := r.reader(ctx, in)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		return fmt.Errorf("input %s: %w", in.uri(), err)
	}
	return resource.Errorf(codes.DataLoss, "the bytes of %s that were scored are not those that were stored, and now it has these again", in.uri()).
		WithCause(resource.CausePlatform).WithHint("check the disk, and start the job again")
}

// checksum is a CRC32C that grows by those of the parts that follow.
type checksum uint32

// castagnoli is the polynomial, its lowest power first.
const castagnoli = 0x82f63b78

// add appends a part of n bytes. A checksum is a polynomial modulo another one: what is
// before n bytes is multiplied by x to the power of 8n.
func (c *checksum) add(sum uint32, n int64) {
	shift, power := uint32(1)<<31, uint32(1)<<23 // 1, and x^8: the highest bit is the lowest power
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			shift = times(shift, power)
		}
		power = times(power, power)
	}
	*c = checksum(times(uint32(*c), shift) ^ sum)
}

// times multiplies two polynomials.
func times(a, b uint32) (product uint32) {
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if b&1 == 1 {
			b = b>>1 ^ castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
