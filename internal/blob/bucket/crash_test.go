package bucket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
)

// over gives a new process on the objects of b, which stops at a change.
func over(t *testing.T, b *gcblob.Bucket, stopAt int, after bool) (*Content, *faulty) {
	t.Helper()
	f := &faulty{under: b, left: stopAt, after: after}
	c := New(gcblob.NewBucket(f), Address{Scheme: "mem", Host: "test"}, logger(t), time.Now)
	c.splitSize, c.fan, c.maxMerged = 40, 3, 30
	return c, f
}

func readAll(t *testing.T, c *Content, id string) (_ []byte, err error) {
	t.Helper()
	r, err := c.Open(t.Context(), id, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

const id = "draft-0123"

// step is one Append of a history.
type step struct {
	offset int64
	data   []byte
}

// history gives appends that grow, cut and replace a content; the digits tell where
// a byte comes from.
func history(r *rand.Rand, n int) []step {
	var steps []step
	size := 0
	for i := range n {
		offset := size
		if r.IntN(4) == 0 {
			offset = r.IntN(size + 1)
		}
		data := bytes.Repeat([]byte{byte('0' + i%75)}, r.IntN(12)*(1+9*(r.IntN(8)/7)))
		steps = append(steps, step{offset: int64(offset), data: data})
		size = offset + len(data)
	}
	return steps
}

func apply(old []byte, s step) []byte {
	return append(bytes.Clone(old[:s.offset]), s.data...)
}

// play applies steps until one fails, and gives what was acknowledged and how many.
func play(t *testing.T, c *Content, steps []step) (acknowledged []byte, done int, err error) {
	t.Helper()
	for i, s := range steps {
		n, err := c.Append(t.Context(), id, s.offset, bytes.NewReader(s.data))
		if err != nil {
			return acknowledged, i, err
		}
		if n != int64(len(s.data)) {
			t.Fatalf("Append = %d of %d bytes", n, len(s.data))
		}
		acknowledged = apply(acknowledged, s)
	}
	return acknowledged, len(steps), nil
}

// permitted says whether got may be there after a kill within s.
func permitted(got, before []byte, s step) bool {
	if !bytes.HasPrefix(got, before[:s.offset]) {
		return false
	}
	return bytes.HasPrefix(before, got) || bytes.HasPrefix(apply(before, s), got)
}

// TestKilledAppends stops a history of appends at every single change to the bucket,
// before and after it: what was acknowledged and not to be dropped is there, nothing else
// is, the next process goes on, or the same one when only the service failed, and a
// removal leaves no object behind.
func TestKilledAppends(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		steps := history(rand.New(rand.NewPCG(seed, 1)), 30)
		c, all := over(t, memblob.OpenBucket(nil), -1, false)
		if got, done, err := play(t, c, steps); err != nil || done != len(steps) {
			t.Fatalf("seed %d: %d steps, %v", seed, done, err)
		} else if read, err := readAll(t, c, id); err != nil || !bytes.Equal(read, got) {
			t.Fatalf("seed %d: read %q, %v, want %q", seed, read, err, got)
		}
		if all.made < 2*len(steps) {
			t.Fatalf("seed %d: %d changes: no segment was merged or cut", seed, all.made)
		}
		for stop := range all.made {
			for i := range 4 {
				after, same := i%2 == 1, i/2 == 1
				t.Run(fmt.Sprintf("seed=%d,stop=%d,after=%t,same=%t", seed, stop, after, same), func(t *testing.T) {
					t.Parallel()
					killOnce(t, steps, stop, after, same)
				})
			}
		}
	}
}

func killOnce(t *testing.T, steps []step, stop int, after, same bool) {
	t.Helper()
	under := memblob.OpenBucket(nil)
	c, f := over(t, under, stop, after)
	before, done, err := play(t, c, steps)
	if done == len(steps) && !f.dead {
		t.Fatal("it was not killed")
	}
	next, _ := over(t, under, -1, false)
	if same {
		f.recover()
		next = c
	}
	got, readErr := readAll(t, next, id)
	if errors.Is(readErr, fs.ErrNotExist) && len(before) == 0 {
		readErr = nil
	}
	if readErr != nil {
		t.Fatalf("read: %v", readErr)
	}
	if err != nil && !permitted(got, before, steps[done]) || err == nil && !bytes.Equal(got, before) {
		t.Fatalf("read %q after %q and a kill within %d %q", got, before, steps[min(done, len(steps)-1)].offset, steps[min(done, len(steps)-1)].data)
	}
	if done < len(steps) { // as a client does: what was not acknowledged comes again
		s := steps[done]
		if _, err := next.Append(t.Context(), id, s.offset, bytes.NewReader(s.data)); err != nil {
			t.Fatal(err)
		}
		want := apply(before, s)
		if _, stale, err := next.list(t.Context(), id); err != nil || len(stale) > 0 {
			t.Errorf("stale after the next append: %v, %v", stale, err)
		}
		for _, s := range steps[done+1:] {
			if _, err := next.Append(t.Context(), id, s.offset, bytes.NewReader(s.data)); err != nil {
				t.Fatal(err)
			}
			want = apply(want, s)
		}
		later, _ := over(t, under, -1, false)
		if got, err := readAll(t, later, id); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	if err := next.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	empty(t, under)
}

// empty wants no object to be left.
func empty(t *testing.T, b *gcblob.Bucket) {
	t.Helper()
	objects, _, err := b.ListPage(t.Context(), gcblob.FirstPageToken, 1000, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		t.Errorf("%s is left over", o.Key)
	}
}

// TestKilledRemovals stops removals: a content is there whole or not at all, and a
// second removal ends the first.
func TestKilledRemovals(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte("0123456789"), 20)
	for stop := range 12 {
		for _, after := range []bool{false, true} {
			under := memblob.OpenBucket(nil)
			c, _ := over(t, under, -1, false)
			if _, err := c.Append(t.Context(), id, 0, bytes.NewReader(want)); err != nil {
				t.Fatal(err)
			}
			c, f := over(t, under, stop, after)
			if err := c.Remove(t.Context(), id); (err != nil) != f.dead {
				t.Fatalf("Remove = %v, killed: %t", err, f.dead)
			}
			next, _ := over(t, under, -1, false)
			if got, err := readAll(t, next, id); !errors.Is(err, fs.ErrNotExist) && (err != nil || !bytes.Equal(got, want)) {
				t.Errorf("stop %d: read %q, %v", stop, got, err)
			}
			if err := next.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			empty(t, under)
		}
	}
}

// TestKilledCreatesAndLinks stops the making of contents of several objects: what
// is left can be found and removed, and the source of a link is untouched.
func TestKilledCreatesAndLinks(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte("0123456789"), 20)
	for stop := range 12 {
		under := memblob.OpenBucket(nil)
		c, _ := over(t, under, -1, false)
		source, _, err := c.Create(t.Context(), bytes.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		c, _ = over(t, under, stop, false)
		if _, _, err = c.Create(t.Context(), bytes.NewReader(want)); err == nil {
			_, err = c.Link(t.Context(), source)
		}
		if stop < 10 && !errors.Is(err, errKilled) {
			t.Fatalf("stop %d: %v", stop, err)
		}
		next, _ := over(t, under, -1, false)
		if got, err := readAll(t, next, source); err != nil || !bytes.Equal(got, want) {
			t.Errorf("stop %d: read %q, %v", stop, got, err)
		}
		var ids []string
		if err := next.Walk(t.Context(), func(id string, _ time.Time) error { ids = append(ids, id); return nil }); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			if err := next.Remove(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		empty(t, under)
	}
}
