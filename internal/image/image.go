// Package image keeps container images: manifests, tags and small blobs as rows,
// layers as contents of the blob store. What it says was stored is durable, and
// every byte was checked against its digest on the way in. It gives runtimes the
// images that they start (runtime.Images) and the registry what it serves.
//
// Formats: OCI image-spec v1.1 and Docker manifest schema 2. References without a
// registry are looked for among what was pushed here, then as Docker Hub's.
package image

import (
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// Kinds of rows. Names of repositories hold no "@", so that it joins keys.
const (
	kindRepo     store.Kind = "imageRepository"    // key: REPO; parent: project
	kindBlob                = blob.KindImageBlob   // key: digest; state: content id, or "" when the row has the bytes
	kindLink     store.Kind = "imageLink"          // key: REPO@DIGEST; parent: REPO; state: digest. The repository has the blob
	kindManifest store.Kind = "imageManifest"      // key: REPO@DIGEST; parent: REPO; state: digest
	kindTag      store.Kind = "imageTag"           // key: REPO@TAG; parent: REPO; state: digest
	kindUse      store.Kind = "imageUse"           // key: REPO@DIGEST@MANIFEST: the manifest needs the blob or manifest
	kindReferrer store.Kind = "imageReferrer"      // key: REPO@SUBJECT@MANIFEST; data: descriptor of the manifest
	kindUpload              = blob.KindImageUpload // key: upload id; parent: REPO; state: content id
)

const (
	// MaxManifest is the most bytes of a manifest, and of a config that is read
	// (distribution-spec: a registry should take 4 MiB at least).
	MaxManifest = 4 << 20
	// maxDescriptors bounds what one manifest names: all are looked up in one
	// transaction.
	maxDescriptors = 4096
	// maxLayers bounds the layers of an image that is run. Docker's own bound is 127.
	maxLayers = 512
	// maxDepth bounds indexes within indexes.
	maxDepth = 4
	// maxInline is the most bytes of a blob that is kept in its row.
	maxInline = 16 << 10
)

// UploadLife is how long an unfinished upload is kept after its last piece.
const UploadLife = 7 * 24 * time.Hour

// Code is an error code of the distribution specification; it is wrapped by the
// errors of this package.
type Code string //nolint:errname // the specification calls it a code

// Codes.
const (
	ErrBlobUnknown         Code = "BLOB_UNKNOWN"
	ErrBlobUploadInvalid   Code = "BLOB_UPLOAD_INVALID"
	ErrBlobUploadUnknown   Code = "BLOB_UPLOAD_UNKNOWN"
	ErrDigestInvalid       Code = "DIGEST_INVALID"
	ErrManifestBlobUnknown Code = "MANIFEST_BLOB_UNKNOWN"
	ErrManifestInvalid     Code = "MANIFEST_INVALID"
	ErrManifestUnknown     Code = "MANIFEST_UNKNOWN"
	ErrNameInvalid         Code = "NAME_INVALID"
	ErrNameUnknown         Code = "NAME_UNKNOWN"
	ErrSizeInvalid         Code = "SIZE_INVALID"
	ErrUnauthorized        Code = "UNAUTHORIZED"
	ErrDenied              Code = "DENIED"
	ErrUnsupported         Code = "UNSUPPORTED"
	ErrTooManyRequests     Code = "TOOMANYREQUESTS"
)

// Error implements error.
func (c Code) Error() string { return string(c) }

func (c Code) grpc() codes.Code {
	switch c {
	case ErrBlobUnknown, ErrBlobUploadUnknown, ErrManifestUnknown, ErrNameUnknown:
		return codes.NotFound
	case ErrManifestBlobUnknown:
		return codes.FailedPrecondition
	case ErrUnauthorized:
		return codes.Unauthenticated
	case ErrDenied:
		return codes.PermissionDenied
	case ErrUnsupported:
		return codes.Unimplemented
	case ErrTooManyRequests:
		return codes.ResourceExhausted
	default:
		return codes.InvalidArgument
	}
}

// Refuse makes an error of a code.
func Refuse(c Code, format string, args ...any) *resource.Error {
	e := resource.Errorf(c.grpc(), format, args...)
	e.Err = c
	if e.Code == codes.InvalidArgument {
		e.Cause = resource.CauseInput
	}
	return e
}

// Repo is a repository: a name, and the project that it belongs to.
type Repo struct{ Name, Project string }

// Blob is a byte string by its digest.
type Blob struct {
	Digest  Digest    `json:"-"`
	Size    int64     `json:"size"`           // with CRC32C: blob.Extent
	CRC32C  uint32    `json:"crc32c"`         // Castagnoli, for backups
	Data    []byte    `json:"data,omitempty"` // the bytes themselves when they are few
	Content string    `json:"-"`              // else the id in blob.Content
	Created time.Time `json:"-"`
}
