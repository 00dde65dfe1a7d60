package bucket

import (
	"context"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// discardParts ends the uploads in parts that were begun below a key and never
// completed: S3 keeps and bills their bytes, though nothing lists them. The driver
// does not end them when its context does, and a kill never does. It is best
// effort, since stores that speak S3 may not list uploads; other drivers need none of it.
func (c *Content) discardParts(ctx context.Context, key string) {
	var client *s3.Client
	if c.address.Scheme != "s3" || !c.bucket.As(&client) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	in := &s3.ListMultipartUploadsInput{Bucket: &c.address.Host, Prefix: new(c.address.Prefix + key)}
	for {
		page, err := client.ListMultipartUploads(ctx, in)
		if err != nil {
			c.log.WarnContext(ctx, "unfinished uploads were not looked for: have a lifecycle rule of the bucket end them", slog.Any("error", err))
			return
		}
		for _, upload := range page.Uploads {
			_, err := client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &c.address.Host, Key: upload.Key, UploadId: upload.UploadId})
			if err != nil {
				c.log.WarnContext(ctx, "an unfinished upload stays in the bucket", slog.Any("error", err))
			}
		}
		if page.IsTruncated == nil || !*page.IsTruncated {
			return
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
	}
}
