package blob

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Reference is a content that a row names, and what the row says of it.
type Reference struct {
	ID     string
	Name   string // the row's key, for people
	Size   int64
	CRC32C uint32 // of the Size bytes
	Grows  bool   // an upload's: what follows the Size bytes may change
}

// References calls fn with every content that the rows of r name, some at a time.
// Small contents are among r's own rows, and are left out.
func References(ctx context.Context, r store.Reader, fn func([]Reference) error) error {
	return references(ctx, r, func(ref Reference) bool { return !isSmall(ref.ID) }, fn)
}

func references(ctx context.Context, r store.Reader, wanted func(Reference) bool, fn func([]Reference) error) error {
	for _, kind := range contentKinds() {
		for after := ""; ; {
			rows, err := r.List(ctx, store.Query{Kind: kind, After: after, Limit: sweepBatch})
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			after = rows[len(rows)-1].Key
			var found []Reference
			for _, row := range rows {
				if row.State == "" {
					continue // a finished upload: its content is the object's now
				}
				ref, err := reference(row)
				if err != nil {
					return err
				}
				if wanted(ref) {
					found = append(found, ref)
				}
			}
			if err := fn(found); err != nil {
				return err
			}
		}
	}
	return nil
}

func reference(row store.Row) (Reference, error) {
	ref := Reference{ID: row.State, Name: string(row.Kind) + " " + row.Key}
	switch row.Kind {
	case kindUpload:
		u, err := rowUpload(row)
		if err != nil {
			return ref, err
		}
		ref.Size, ref.CRC32C, ref.Grows = u.Received, u.Hashes.CRC32C, true
	case kindPart:
		p, err := rowPart(row)
		if err != nil {
			return ref, err
		}
		ref.Size, ref.CRC32C = p.Size, p.CRC32C
	case KindImageBlob, KindImageUpload, KindVectorSegment:
		e, err := rowExtent(row)
		if err != nil {
			return ref, err
		}
		ref.Size, ref.CRC32C, ref.Grows = e.Size, e.CRC32C, row.Kind == KindImageUpload
	default:
		o, err := rowObject(row)
		if err != nil {
			return ref, err
		}
		ref.Size, ref.CRC32C = o.Size, o.CRC32C
	}
	return ref, nil
}

// CheckSmall reads the small contents that the rows of r name, which are rows of r
// too, against their CRC32C, and gives how many there are.
func CheckSmall(ctx context.Context, r store.Reader) (checked int, err error) {
	return checked, references(ctx, r, func(ref Reference) bool { return isSmall(ref.ID) }, func(refs []Reference) error {
		for _, ref := range refs {
			row, err := r.Get(ctx, kindSmall, ref.ID)
			if resource.IsNotFound(err) {
				return fmt.Errorf("the content %s of %s is missing", ref.ID, ref.Name)
			}
			if err != nil {
				return err
			}
			if int64(len(row.Data)) != ref.Size || crc32.Checksum(row.Data, crc32.MakeTable(crc32.Castagnoli)) != ref.CRC32C {
				return fmt.Errorf("the content %s of %s is damaged", ref.ID, ref.Name)
			}
			checked++
		}
		return nil
	})
}

// ReadContent opens the bytes of a content, for a copy of the whole store.
func (s *Store) ReadContent(ctx context.Context, id string, length int64) (io.ReadCloser, error) {
	return s.content.Open(ctx, id, 0, length)
}

// LinkContent gives the file of a content that never changes a second name, where
// the content is a file and the name on the same file system; otherwise it fails.
func (s *Store) LinkContent(ctx context.Context, id, path string) error {
	linker, ok := s.content.Content.(interface {
		LinkTo(ctx context.Context, id, path string) error
	})
	if !ok {
		return resource.Unimplemented("a link to a content")
	}
	return linker.LinkTo(ctx, id, path)
}
