// Package gcs serves the storage API (JSON, uploads, downloads, batches, and the
// XML API) over a blob.Store. It translates and checks; what an object is, is
// decided in package blob. What it does not serve is refused by
// name with 501.
package gcs

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tategu/internal/access"
	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Authorizer says whether a caller may; identity.Authority is one.
type Authorizer interface {
	// Authorize is nil when p has the permission in the project.
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
	// AuthorizeBucket is nil when p has the permission by a role in the bucket's
	// project or by the bucket's policy.
	AuthorizeBucket(ctx context.Context, p identity.Principal, b identity.Bucket, permission string) error
	// AuthorizeMissing is nil when p may learn that there is no such bucket.
	AuthorizeMissing(p identity.Principal, bucket, permission string) error
	// VerifySignature gives the service account that signed a message.
	VerifySignature(ctx context.Context, account string, message, signature []byte) (identity.Principal, error)
	// CheckBucketPolicy refuses a policy that could not be evaluated.
	CheckBucketPolicy(ctx context.Context, b identity.Bucket) error
	// ProjectNumber gives the number of a project.
	ProjectNumber(ctx context.Context, project string) (string, error)
}

// Handler answers requests of the storage API. It finds the caller in
// identity.FromContext.
type Handler struct {
	blobs   *blob.Store
	auth    Authorizer
	log     *slog.Logger
	now     func() time.Time
	methods map[string]method

	xmlRoutes map[string]xmlRoute
}

type method func(c *call) error

// New makes a Handler.
func New(blobs *blob.Store, auth Authorizer, log *slog.Logger, now func() time.Time) *Handler {
	h := &Handler{blobs: blobs, auth: auth, log: log, now: now}
	h.methods, h.xmlRoutes = h.table(), h.xmlTable()
	return h
}

// table lists what is served: service, HTTP method and path, where * is a name.
func (h *Handler) table() map[string]method {
	return map[string]method{
		"json GET b":                         h.listBuckets,
		"json POST b":                        h.insertBucket,
		"json GET b/*":                       h.getBucket,
		"json PATCH b/*":                     h.patchBucket,
		"json PUT b/*":                       h.updateBucket,
		"json DELETE b/*":                    h.deleteBucket,
		"json GET b/*/iam":                   h.getPolicy,
		"json PUT b/*/iam":                   h.setPolicy,
		"json GET b/*/iam/testPermissions":   h.testPermissions,
		"json GET projects/*/serviceAccount": h.serviceAccount,

		"json POST b/*/lockRetentionPolicy": h.lockRetention,
		"json GET b/*/storageLayout":        h.storageLayout,

		"json GET b/*/notificationConfigs":      h.listNotifications,
		"json POST b/*/notificationConfigs":     h.insertNotification,
		"json GET b/*/notificationConfigs/*":    h.getNotification,
		"json DELETE b/*/notificationConfigs/*": h.deleteNotification,

		"json GET b/*/o":                      h.listObjects,
		"json GET b/*/o/*":                    h.getObject,
		"json PATCH b/*/o/*":                  h.patchObject,
		"json PUT b/*/o/*":                    h.updateObject,
		"json DELETE b/*/o/*":                 h.deleteObject,
		"json POST b/*/o/*/copyTo/b/*/o/*":    h.copyObject,
		"json POST b/*/o/*/rewriteTo/b/*/o/*": h.rewriteObject,
		"json POST b/*/o/*/compose":           h.composeObject,
		"json POST b/*/o/*/restore":           h.restoreObject,
		"json POST b/*/o/*/moveTo/o/*":        h.moveObject,
		"download GET b/*/o/*":                h.download,
		"upload POST b/*/o":                   h.upload,
		"upload PUT b/*/o":                    h.resume,
		"upload DELETE b/*/o":                 h.cancel,
		"batch POST ":                         h.batch,
		"xml GET *":                           h.xml,
		"xml PUT *":                           h.xml,
		"xml POST *":                          h.xml,
		"xml DELETE *":                        h.xml,
	}
}

// call is one request on its way.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	query url.Values
	names []string // of buckets and objects in the path, decoded
	inner bool     // part of a batch
	xml   bool     // of the XML API
}

func (c *call) ctx() context.Context { return c.r.Context() }

// Owns reports a request in the XML style, /BUCKET/OBJECT, of a bucket that there
// is, or is to be made: clients that are pointed at this server by its own address
// send those too.
func (h *Handler) Owns(r *http.Request) bool {
	t, err := parseTarget(r.Host, r.URL.EscapedPath())
	if err == nil && t.service == serviceXML && signedQuery(r.URL.RawQuery) {
		return true // refused in the form that signers read, whether there is such a bucket or not
	}
	if err != nil || t.service != serviceXML || blob.CheckBucketName(t.names[0]) != nil {
		return false
	}
	if r.Method == http.MethodPut && t.names[1] == "" && r.Header.Get("X-Goog-Project-Id") != "" {
		return true
	}
	_, err = h.blobs.GetBucket(r.Context(), t.names[0])
	return err == nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.serve(w, r, false) }

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, inner bool) {
	t, err := h.target(r)
	if err == nil && h.cors(w, r, t) {
		return
	}
	if err == nil {
		err = h.route(w, r, t, inner)
	}
	if err != nil {
		h.writeError(w, r, t.service == serviceXML, err)
	}
}

func (h *Handler) route(w http.ResponseWriter, r *http.Request, t target, inner bool) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return resource.Invalid("query", "the query cannot be read: %w", err)
	}
	verb := verbOf(r, t.service)
	if verb == http.MethodHead {
		verb = http.MethodGet
	}
	m, ok := h.methods[t.service+" "+verb+" "+t.pattern]
	if !ok && t.service == serviceJSON && isACL(t.pattern) {
		return resource.Invalid("acl", "Cannot get or change legacy ACLs when uniform bucket-level access is enabled, as it is in all buckets here: use IAM policies")
	}
	if !ok {
		return resource.Unimplemented(r.Method + " of " + strings.TrimSpace("storage "+t.service+" "+t.pattern))
	}
	if inner && t.service != serviceJSON {
		return resource.Invalid("batch", "a batch holds JSON calls, not %s of %s", r.Method, t.service)
	}
	if err := refuseUnserved(r, query); err != nil {
		return err
	}
	if err := checkSigned(r); err != nil {
		return err
	}
	unzipBody(r, t.service, query)
	return m(&call{w: w, r: r, query: query, names: t.names, inner: inner})
}

// refuseUnserved names what a request asks for that nothing here would do.
func refuseUnserved(r *http.Request, query url.Values) error {
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Goog-Encryption-") || strings.HasPrefix(name, "X-Goog-Copy-Source-Encryption-") {
			return resource.Unimplemented("encryption with the client's own keys (" + name + ")")
		}
	}
	for _, name := range []string{"predefinedAcl", "destinationPredefinedAcl", "predefinedDefaultObjectAcl"} {
		if v := query.Get(name); strings.HasPrefix(v, "public") || v == "authenticatedRead" {
			return resource.Unimplemented("access control lists (" + name + "=" + v + ")")
		}
	}
	for _, name := range []string{"kmsKeyName", "destinationKmsKeyName"} {
		if query.Get(name) != "" {
			return resource.Unimplemented("storage parameter " + name)
		}
	}
	for _, name := range []string{"includeFoldersAsPrefixes", "returnPartialSuccess"} {
		if isTrue(query, name) {
			return resource.Unimplemented("storage parameter " + name)
		}
	}
	return nil
}

// isACL reports the path of an access control list.
func isACL(pattern string) bool {
	pattern = strings.TrimSuffix(pattern, "/*")
	return strings.HasSuffix(pattern, "/acl") || strings.HasSuffix(pattern, "/defaultObjectAcl")
}

// bucketFor gives the bucket after asking for permissions on it, one or more. A bucket that
// does not exist looks closed to callers who could not have opened it.
func (h *Handler) bucketFor(ctx context.Context, name string, permissions ...string) (blob.Bucket, error) {
	return access.Bucket(ctx, h.blobs, h.auth, identity.FromContext(ctx), name, permissions...)
}

// authorize asks for permissions on a bucket, which is read once for all of them.
func (h *Handler) authorize(ctx context.Context, bucket string, permissions ...string) error {
	_, err := h.bucketFor(ctx, bucket, permissions...)
	return err
}
