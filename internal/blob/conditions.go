package blob

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// ErrNotModified answers a read whose *NotMatch condition does not hold (HTTP 304).
var ErrNotModified = errors.New("the object was not modified")

// ErrNotEmpty is wrapped by the refusal to delete a bucket that holds objects.
var ErrNotEmpty = errors.New("the bucket holds objects")

// ErrHeld is wrapped by the refusal to destroy what a hold or a retention keeps.
var ErrHeld = errors.New("kept by a hold or retention")

// ErrDigest is wrapped by the refusal of bytes that do not hash to what was given.
var ErrDigest = errors.New("checksum mismatch")

// MaxName is the longest object name in bytes.
const MaxName = 1024

// CheckName applies the rules for object names
// (cloud.google.com/storage/docs/objects#naming).
func CheckName(name string) error {
	switch {
	case name == "":
		return resource.Invalid("name", "an object needs a name")
	case len(name) > MaxName:
		return resource.Invalid("name", "the object name has %d bytes, the most is %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return resource.Invalid("name", "the object name %q is not valid UTF-8", name)
	case strings.ContainsAny(name, "\r\n"):
		return resource.Invalid("name", "the object name %q holds a line break", name)
	case name == "." || name == "..":
		return resource.Invalid("name", "an object may not be named %q", name)
	case strings.HasPrefix(name, ".well-known/acme-challenge/"):
		return resource.Invalid("name", "object names may not start with .well-known/acme-challenge/")
	}
	return nil
}

// CheckBucketName applies the rules for bucket names.
func CheckBucketName(name string) error {
	bad := len(name) < 3 || len(name) > 222
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		inner := i > 0 && i < len(name)-1
		if !alnum && (!inner || c != '-' && c != '_' && c != '.') {
			bad = true
		}
	}
	if bad {
		return resource.Invalid("bucket", "%q is no bucket name: want 3 to 63 of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends", name)
	}
	return nil
}

func missingObject(bucket, name string) error {
	return resource.Errorf(codes.NotFound, "No such object: %s/%s", bucket, name).WithResource("gs://" + bucket + "/" + name)
}

func missingBucket(name string) error {
	return resource.Errorf(codes.NotFound, "The specified bucket does not exist: %s", name).WithResource("gs://" + name)
}

func failed(bucket, name, condition string, want, have int64) error {
	return resource.Errorf(codes.FailedPrecondition, "precondition %s=%d does not hold: it is %d", condition, want, have).
		WithResource("gs://" + bucket + "/" + name)
}

// check applies the preconditions to what is live; generation 0 is nothing.
func (c Conditions) check(bucket, name string, generation, metageneration int64) error {
	switch {
	case c.GenerationMatch != nil && *c.GenerationMatch != generation:
		return failed(bucket, name, "ifGenerationMatch", *c.GenerationMatch, generation)
	case c.MetagenerationMatch != nil && *c.MetagenerationMatch != metageneration:
		return failed(bucket, name, "ifMetagenerationMatch", *c.MetagenerationMatch, metageneration)
	case c.GenerationNotMatch != nil && *c.GenerationNotMatch == generation:
		return failed(bucket, name, "ifGenerationNotMatch", *c.GenerationNotMatch, generation)
	case c.MetagenerationNotMatch != nil && *c.MetagenerationNotMatch == metageneration:
		return failed(bucket, name, "ifMetagenerationNotMatch", *c.MetagenerationNotMatch, metageneration)
	}
	return nil
}

// checkRead is check for a read, where *NotMatch means "only if it changed".
func (c Conditions) checkRead(bucket, name string, generation, metageneration int64) error {
	match := Conditions{GenerationMatch: c.GenerationMatch, MetagenerationMatch: c.MetagenerationMatch}
	if err := match.check(bucket, name, generation, metageneration); err != nil {
		return err
	}
	if c.check(bucket, name, generation, metageneration) != nil {
		return ErrNotModified
	}
	return nil
}

// checkDigest compares the hashes that the client gave with those of the bytes.
func (c Conditions) checkDigest(d Digest) error {
	if c.CRC32C != nil && *c.CRC32C != d.CRC32C {
		return resource.Invalid("crc32c", "the CRC32C of the %d bytes received is %08x, not %08x as given: nothing was stored: %w", d.Size, d.CRC32C, *c.CRC32C, ErrDigest)
	}
	if len(c.MD5) > 0 && !bytes.Equal(c.MD5, d.MD5) {
		return resource.Invalid("md5Hash", "the MD5 of the %d bytes received is %x, not %x as given: nothing was stored: %w", d.Size, d.MD5, c.MD5, ErrDigest)
	}
	return nil
}
