package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

const (
	firstBucket  = "kill-first"
	secondBucket = "kill-second" // keeps versions
)

// outcome is what a name may show: an object with these bytes, or none.
type outcome struct {
	data    []byte
	deleted bool
}

// entry is what is known of one name. maybe are the writes since the last
// acknowledged one whose answers did not come.
type entry struct {
	bucket, name string
	acked        outcome
	generation   int64 // of acked; 0 without an object
	maybe        []outcome
	versions     map[int64]string // crc32c of all generations that were there, in the bucket that keeps them
}

// objects writes names of its own, one call at a time, and knows what each shows.
type objects struct {
	*client
	random  *rand.Rand
	id      string
	names   map[string]*entry
	resumed int // uploads that went on after a kill
}

func newObjects(c *client, id string, random *rand.Rand) *objects {
	return &objects{client: c, random: random, id: id, names: map[string]*entry{}}
}

// run writes until drained, then settles what a kill cut off.
func (o *objects) run(ctx context.Context, drained <-chan struct{}) error {
	for {
		if over, err := isOver(ctx, drained); err != nil {
			return err
		} else if over {
			return o.settleAll(ctx)
		}
		if err := o.step(ctx); err != nil && !errors.Is(err, errKilled) {
			return fmt.Errorf("objects %s: %w", o.id, err)
		}
	}
}

func (o *objects) settleAll(ctx context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(o.names)) {
		for {
			err := o.settle(ctx, o.names[key])
			if err == nil {
				break
			}
			if !errors.Is(err, errKilled) {
				return fmt.Errorf("objects %s: %w", o.id, err)
			}
		}
	}
	return nil
}

// step does one thing to one name, after finding out what a cut-off call did.
func (o *objects) step(ctx context.Context) error {
	e := o.pick()
	if err := o.settle(ctx, e); err != nil {
		return err
	}
	source := o.any()
	switch n := o.random.IntN(100); {
	case n < 25:
		return o.put(ctx, e, o.bytes(200_000))
	case n < 40:
		return o.multipart(ctx, e, o.bytes(50_000))
	case n < 55:
		return o.resumable(ctx, e, o.bytes(1_500_000))
	case n < 65 && source != nil:
		return o.rewrite(ctx, e, source)
	case n < 75 && source != nil:
		return o.compose(ctx, e)
	case n < 85:
		return o.remove(ctx, e)
	default:
		return o.read(ctx, e)
	}
}

func (o *objects) pick() *entry {
	bucket, name := firstBucket, fmt.Sprintf("w%s/ object %d?#%%é", o.id, o.random.IntN(24))
	if o.random.IntN(4) == 0 {
		bucket = secondBucket
	}
	key := bucket + "/" + name
	if o.names[key] == nil {
		o.names[key] = &entry{bucket: bucket, name: name, acked: outcome{deleted: true}, versions: map[int64]string{}}
	}
	return o.names[key]
}

// any gives a name that surely shows an object.
func (o *objects) any() *entry {
	keys := slices.Sorted(maps.Keys(o.names))
	for range keys {
		if e := o.names[keys[o.random.IntN(len(keys))]]; !e.acked.deleted && len(e.maybe) == 0 {
			return e
		}
	}
	return nil
}

// bytes makes content that no other write has.
func (o *objects) bytes(most int) []byte {
	data := make([]byte, 16+o.random.IntN(most))
	var word [8]byte
	for i := 0; i < len(data); i += 8 {
		binary.LittleEndian.PutUint64(word[:], o.random.Uint64())
		copy(data[i:], word[:])
	}
	return data
}

// resource is an object as the API shows it.
type objectResource struct {
	Generation string `json:"generation"`
	Size       string `json:"size"`
	MD5Hash    string `json:"md5Hash"`
	CRC32C     string `json:"crc32c"`
}

func crcText(data []byte) string {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func (e *entry) path() string {
	return "/storage/v1/b/" + e.bucket + "/o/" + url.PathEscape(e.name)
}

func (e *entry) String() string { return "gs://" + e.bucket + "/" + e.name }

// write does one call that changes e. What it does stands in maybe until it is
// acknowledged.
func (o *objects) write(ctx context.Context, e *entry, want outcome, r request) error {
	e.maybe = append(e.maybe, want)
	a, err := o.do(ctx, r)
	if err != nil {
		return err
	}
	return o.acknowledge(e, want, a)
}

// acknowledge takes down what the server said it has done.
func (o *objects) acknowledge(e *entry, want outcome, a answer) error {
	if want.deleted {
		if a.status != http.StatusNoContent {
			return fmt.Errorf("delete %s: %s", e, a)
		}
		o.book.acked.Add(1)
		e.now(want, 0)
		return nil
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("write %s: %s", e, a)
	}
	var shown objectResource
	if err := a.into(&shown); err != nil {
		return err
	}
	generation, err := strconv.ParseInt(shown.Generation, 10, 64)
	if err != nil {
		return fmt.Errorf("write %s: generation: %w", e, err)
	}
	if shown.CRC32C != crcText(want.data) || shown.Size != strconv.Itoa(len(want.data)) {
		o.book.isTorn("%s: sent %d bytes with crc32c %s, acknowledged %+v", e, len(want.data), crcText(want.data), shown)
	}
	if generation <= e.generation {
		o.book.problem("%s: generation %d after %d", e, generation, e.generation)
	}
	o.book.acked.Add(1)
	e.now(want, generation)
	return nil
}

// now takes down what e surely shows.
func (e *entry) now(shown outcome, generation int64) {
	e.acked, e.generation, e.maybe = shown, generation, nil
	if e.bucket == secondBucket && !shown.deleted {
		e.versions[generation] = crcText(shown.data)
	}
}

// settle finds out what became of writes that a kill cut off: each was done as a
// whole or not at all.
func (o *objects) settle(ctx context.Context, e *entry) error {
	if len(e.maybe) == 0 {
		return nil
	}
	found, generation, err := o.look(ctx, e)
	if err != nil {
		return err
	}
	if !e.known(found, generation) {
		for _, m := range e.maybe {
			if m.deleted == found.deleted && bytes.Equal(m.data, found.data) {
				o.book.settled.Add(int64(len(e.maybe)))
				e.now(found, generation)
				return nil
			}
		}
		o.differs(e, found, generation)
	}
	o.book.settled.Add(int64(len(e.maybe)))
	e.now(found, generation)
	return nil
}

// known reports that what was found is what was acknowledged last.
func (e *entry) known(found outcome, generation int64) bool {
	return found.deleted == e.acked.deleted && generation == e.generation && bytes.Equal(found.data, e.acked.data)
}

// differs tells what kind of damage it is.
func (o *objects) differs(e *entry, found outcome, generation int64) {
	switch {
	case found.deleted:
		o.book.isLost("%s: generation %d was acknowledged and there is no object", e, e.generation)
	case e.acked.deleted && len(e.maybe) == 0:
		o.book.isLost("%s: its removal was acknowledged and generation %d is there", e, generation)
	case generation <= e.generation && generation != e.generation:
		o.book.isLost("%s: generation %d was acknowledged and %d is there", e, e.generation, generation)
	default:
		o.book.isTorn("%s: generation %d has %d bytes that nobody wrote", e, generation, len(found.data))
	}
}

// look reads metadata and bytes of a name, which must agree.
func (o *objects) look(ctx context.Context, e *entry) (outcome, int64, error) {
	a, err := o.do(ctx, request{method: http.MethodGet, path: e.path()})
	if err != nil {
		return outcome{}, 0, err
	}
	if a.status == http.StatusNotFound {
		return outcome{deleted: true}, 0, nil
	}
	var shown objectResource
	if a.status != http.StatusOK {
		return outcome{}, 0, fmt.Errorf("read %s: %s", e, a)
	}
	if err := a.into(&shown); err != nil {
		return outcome{}, 0, err
	}
	a, err = o.do(ctx, request{method: http.MethodGet, path: e.path() + "?alt=media&generation=" + shown.Generation})
	if err != nil {
		return outcome{}, 0, err
	}
	if a.status != http.StatusOK {
		return outcome{}, 0, fmt.Errorf("read %s, generation %s: %s", e, shown.Generation, a)
	}
	if crcText(a.body) != shown.CRC32C || strconv.Itoa(len(a.body)) != shown.Size {
		o.book.isTorn("%s: %d bytes with crc32c %s, its metadata says %+v", e, len(a.body), crcText(a.body), shown)
	}
	generation, err := strconv.ParseInt(shown.Generation, 10, 64)
	return outcome{data: a.body}, generation, err
}

// read checks one name against the ledger.
func (o *objects) read(ctx context.Context, e *entry) error {
	found, generation, err := o.look(ctx, e)
	if err == nil && !e.known(found, generation) {
		o.differs(e, found, generation)
	}
	return err
}

// readVersions reads every generation that a bucket with versions keeps.
func (o *objects) readVersions(ctx context.Context, e *entry) error {
	for generation, crc := range e.versions {
		a, err := o.do(ctx, request{method: http.MethodGet, path: e.path() + "?alt=media&generation=" + strconv.FormatInt(generation, 10)})
		switch {
		case err != nil:
			return err
		case a.status == http.StatusNotFound:
			o.book.isLost("%s: generation %d was acknowledged and is not kept", e, generation)
		case a.status != http.StatusOK:
			return fmt.Errorf("read %s, generation %d: %s", e, generation, a)
		case crcText(a.body) != crc:
			o.book.isTorn("%s: generation %d has %d bytes with crc32c %s, acknowledged with %s", e, generation, len(a.body), crcText(a.body), crc)
		}
	}
	return nil
}
