package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tategu/internal/store"
)

// objectRecord is the stored form of an Object; bucket and name are its row's key.
type objectRecord struct {
	Generation         int64             `json:"g"`
	Metageneration     int64             `json:"m"`
	Size               int64             `json:"s"`
	ContentType        string            `json:"t,omitempty"`
	ContentEncoding    string            `json:"enc,omitempty"`
	ContentDisposition string            `json:"disp,omitempty"`
	ContentLanguage    string            `json:"lang,omitempty"`
	CacheControl       string            `json:"cache,omitempty"`
	StorageClass       string            `json:"class,omitempty"`
	Metadata           map[string]string `json:"meta,omitempty"`
	MD5                []byte            `json:"md5,omitempty"`
	CRC32C             uint32            `json:"crc"`
	Components         int               `json:"n,omitempty"`
	Created            int64             `json:"c"` // microseconds
	Updated            int64             `json:"u"`
	CustomTime         int64             `json:"ct,omitempty"`
	Content            string            `json:"id"`

	ClassUpdated   int64  `json:"cu,omitempty"`
	Deleted        int64  `json:"d,omitempty"`
	SoftDeleted    int64  `json:"sd,omitempty"`
	HardDelete     int64  `json:"hd,omitempty"`
	TemporaryHold  bool   `json:"th,omitempty"`
	EventBasedHold bool   `json:"eh,omitempty"`
	HoldReleased   int64  `json:"hr,omitempty"`
	RetentionMode  string `json:"rm,omitempty"`
	RetainUntil    int64  `json:"ru,omitempty"`
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// later keeps times of a change growing when the clock was set back.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

func objectKey(bucket, name string) string { return bucket + "/" + name }

func (o Object) record() objectRecord {
	return objectRecord{
		Generation: o.Generation, Metageneration: o.Metageneration, Size: o.Size,
		ContentType: o.ContentType, ContentEncoding: o.ContentEncoding, ContentDisposition: o.ContentDisposition,
		ContentLanguage: o.ContentLanguage, CacheControl: o.CacheControl, StorageClass: o.StorageClass,
		Metadata: o.Metadata, MD5: o.MD5, CRC32C: o.CRC32C, Components: o.Components,
		Created: micros(o.Created), Updated: micros(o.Updated), CustomTime: micros(o.CustomTime), Content: o.Content,
		ClassUpdated: micros(o.ClassUpdated), Deleted: micros(o.Deleted), SoftDeleted: micros(o.SoftDeleted), HardDelete: micros(o.HardDelete),
		TemporaryHold: o.TemporaryHold, EventBasedHold: o.EventBasedHold, HoldReleased: micros(o.HoldReleased),
		RetentionMode: o.Retention.Mode, RetainUntil: micros(o.Retention.Until),
	}
}

func (r objectRecord) object(bucket, name string) Object {
	return Object{
		Bucket: bucket, Name: name, Generation: r.Generation, Metageneration: r.Metageneration, Size: r.Size,
		ContentType: r.ContentType, ContentEncoding: r.ContentEncoding, ContentDisposition: r.ContentDisposition,
		ContentLanguage: r.ContentLanguage, CacheControl: r.CacheControl, StorageClass: r.StorageClass,
		Metadata: r.Metadata, MD5: r.MD5, CRC32C: r.CRC32C, Components: r.Components,
		Created: fromMicros(r.Created), Updated: fromMicros(r.Updated), CustomTime: fromMicros(r.CustomTime), Content: r.Content,
		ClassUpdated: fromMicros(r.ClassUpdated), Deleted: fromMicros(r.Deleted),
		SoftDeleted: fromMicros(r.SoftDeleted), HardDelete: fromMicros(r.HardDelete),
		TemporaryHold: r.TemporaryHold, EventBasedHold: r.EventBasedHold, HoldReleased: fromMicros(r.HoldReleased),
		Retention: ObjectRetention{Mode: r.RetentionMode, Until: fromMicros(r.RetainUntil)},
	}
}

func objectRow(o Object) (store.Row, error) {
	data, err := json.Marshal(o.record())
	if err != nil {
		return store.Row{}, fmt.Errorf("encode object %s/%s: %w", o.Bucket, o.Name, err)
	}
	row := store.Row{Kind: o.kindOf(), Key: objectKey(o.Bucket, o.Name), State: o.Content, Data: data}
	if row.Kind != kindObject {
		row.Key = generationKey(o.Bucket, o.Name, o.Generation)
	}
	return row, nil
}

func putObject(ctx context.Context, tx store.Tx, o Object) error {
	row, err := objectRow(o)
	if err != nil {
		return err
	}
	return tx.Put(ctx, row)
}

// rowName gives the names that the key of a row of objects holds.
func rowName(row store.Row) (bucket, name string, err error) {
	if row.Kind != kindObject {
		return parseGenerationKey(row.Key)
	}
	bucket, name, _ = strings.Cut(row.Key, "/")
	return bucket, name, nil
}

func rowObject(row store.Row) (Object, error) {
	bucket, name, err := rowName(row)
	if err != nil {
		return Object{}, err
	}
	var r objectRecord
	if err := json.Unmarshal(row.Data, &r); err != nil {
		return Object{}, fmt.Errorf("decode object %s: %w", row.Key, err)
	}
	return r.object(bucket, name), nil
}

func bucketRow(b Bucket) (store.Row, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return store.Row{}, fmt.Errorf("encode bucket %s: %w", b.Name, err)
	}
	return store.Row{Kind: kindBucket, Key: b.Name, Parent: projectParent(b.Project), Data: data}, nil
}

func projectParent(project string) string { return "projects/" + project }

func rowBucket(row store.Row) (Bucket, error) {
	var b Bucket
	if err := json.Unmarshal(row.Data, &b); err != nil {
		return Bucket{}, fmt.Errorf("decode bucket %s: %w", row.Key, err)
	}
	return b, nil
}
