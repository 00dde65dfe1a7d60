// Package access is the object store as somebody may see it. Whatever the server
// reads or writes for a workload (its inputs, its outputs, a model's files, the
// records of a batch prediction) goes through it, as the service account that the
// workload runs as, and needs the permissions that the storage API asks the same
// account for. Engines and runtimes are given nothing else: blob.Store has no
// method that fits their ports.
//
// It owns no rows. What a role or a policy grants is decided in package identity.
package access

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Permissions on a bucket (cloud.google.com/storage/docs/access-control/iam-permissions).
const (
	Get    = "storage.objects.get"
	List   = "storage.objects.list"
	Create = "storage.objects.create"
	Delete = "storage.objects.delete"

	createBuckets = "storage.buckets.create"
)

// Authorizer says whether a principal may; identity.Authority is one.
type Authorizer interface {
	// AuthorizeBucket is nil when p has the permission by a role in the bucket's
	// project or by the bucket's policy.
	AuthorizeBucket(ctx context.Context, p identity.Principal, b identity.Bucket, permission string) error
	// AuthorizeMissing is nil when p may learn that there is no such bucket.
	AuthorizeMissing(p identity.Principal, bucket, permission string) error
}

// Accounts is an Authorizer that knows service accounts; identity.Authority is one.
type Accounts interface {
	Authorizer
	// Authorize is nil when p has the permission in the project.
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
	// AccountPrincipal is who a workload is.
	AccountPrincipal(ctx context.Context, a identity.Account) (identity.Principal, error)
}

// Of is what a decision about a bucket looks at.
func Of(b blob.Bucket) (identity.Bucket, error) {
	of := identity.Bucket{Name: b.Name, Project: b.Project, PrivateOnly: b.PublicAccessPrevention == "enforced"}
	if len(b.Policy) == 0 {
		return of, nil
	}
	if err := json.Unmarshal(b.Policy, &of.Policy); err != nil {
		return of, fmt.Errorf("policy of bucket %s: %w", b.Name, err)
	}
	return of, nil
}

// Bucket gives a bucket once p has the permissions on it, one or more. One that does
// not exist looks closed to whoever could not have opened it, and is NotFound to others.
func Bucket(ctx context.Context, store *blob.Store, auth Authorizer, p identity.Principal, name string, permissions ...string) (blob.Bucket, error) {
	b, err := store.GetBucket(ctx, name)
	if resource.IsNotFound(err) {
		if denied := auth.AuthorizeMissing(p, name, permissions[0]); denied != nil {
			return blob.Bucket{}, denied
		}
	}
	if err != nil {
		return blob.Bucket{}, err
	}
	of, err := Of(b)
	if err != nil {
		return blob.Bucket{}, err
	}
	for _, permission := range permissions {
		if err := auth.AuthorizeBucket(ctx, p, of, permission); err != nil {
			return b, err
		}
	}
	return b, nil
}

// Objects is the object store for workloads. It implements runtime.Files.
type Objects struct {
	store *blob.Store
	auth  Accounts
}

// New makes the guarded store.
func New(store *blob.Store, auth Accounts) *Objects { return &Objects{store: store, auth: auth} }

// As is the store as a service account sees it. Every call of a View asks anew: a
// role or a policy that is taken away ends what a running workload may do.
func (o *Objects) As(account identity.Account) *View { return &View{Objects: o, account: account} }

// Download is View.Download.
func (o *Objects) Download(ctx context.Context, as identity.Account, uri, dir string) error {
	return o.As(as).Download(ctx, uri, dir)
}

// UploadFile is View.UploadFile.
func (o *Objects) UploadFile(ctx context.Context, as identity.Account, path, uri string) error {
	return o.As(as).UploadFile(ctx, path, uri)
}

// MayWrite is View.MayWrite.
func (o *Objects) MayWrite(ctx context.Context, as identity.Account, uri string) error {
	return o.As(as).MayWrite(ctx, uri)
}

// View is the object store as one service account sees it. What the account may not
// do is PermissionDenied, of cause input, and names account, permission and object.
type View struct {
	*Objects
	account identity.Account
}

// check asks for permissions on the bucket of an object, for what it is needed.
func (v *View) check(ctx context.Context, bucket, name string, permissions ...string) error {
	p, err := v.auth.AccountPrincipal(ctx, v.account)
	if err != nil {
		return fmt.Errorf("the service account of a workload: %w", err)
	}
	for _, permission := range permissions {
		_, err := Bucket(ctx, v.store, v.auth, p, bucket, permission)
		switch resource.CodeOf(err) {
		case codes.OK:
		case codes.PermissionDenied, codes.Unauthenticated:
			return denied(p.Email, permission, bucket, name)
		default:
			return err
		}
	}
	return nil
}

// denied tells which role would do: those of cloud.google.com/storage/docs/access-control/iam-roles.
func denied(account, permission, bucket, name string) error {
	role := map[string]string{Get: "objectViewer", List: "objectViewer", Create: "objectCreator"}[permission]
	if role == "" {
		role = "objectUser"
	}
	uri := "gs://" + bucket + "/" + name
	return refuse(uri, "permission %q denied to the service account %q on %s", permission, account, uri).
		WithHint("bind roles/storage.%s to serviceAccount:%s in the policy of gs://%s, or run as a service account that has it (docs/guide/access.md)", role, account, bucket)
}

func refuse(uri, format string, args ...any) *resource.Error {
	e := resource.Errorf(codes.PermissionDenied, format, args...).WithResource(uri).WithCause(resource.CauseInput)
	e.Reason = resource.ReasonDenied
	return e
}
