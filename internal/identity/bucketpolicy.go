package identity

import (
	"context"
	"encoding/json"
	"net/mail"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// BucketPolicy is the IAM policy of a bucket in the storage API's JSON form.
type BucketPolicy struct {
	Version  int       `json:"version,omitempty"`
	Bindings []Binding `json:"bindings,omitempty"`
}

// Binding gives a role to members.
type Binding struct {
	Role      string          `json:"role"`
	Members   []string        `json:"members,omitempty"`
	Condition json.RawMessage `json:"condition,omitempty"` // refused by CheckBucketPolicy
}

// Bucket is what the decision about a bucket looks at.
type Bucket struct {
	Name, Project string
	Policy        BucketPolicy
	// PrivateOnly makes members that mean everybody mean nobody (public access
	// prevention).
	PrivateOnly bool
}

const (
	allUsers              = "allUsers"
	allAuthenticatedUsers = "allAuthenticatedUsers"

	maxBindings = 1500 // members in all (cloud.google.com/iam/quotas)
)

// CheckBucketPolicy refuses what would not be evaluated, by name.
func (a *Authority) CheckBucketPolicy(ctx context.Context, b Bucket) error {
	switch b.Policy.Version {
	case 0, 1, 3:
	default:
		return resource.Invalid("version", "%d is not a version of a policy", b.Policy.Version).WithHint("use 1, or 3")
	}
	members := 0
	for _, binding := range b.Policy.Bindings {
		if err := checkBinding(binding); err != nil {
			return err
		}
		if members += len(binding.Members); members > maxBindings {
			return resource.Invalid("bindings", "a policy has at most %d members in all its bindings", maxBindings)
		}
		for _, m := range binding.Members {
			if b.PrivateOnly && (m == allUsers || m == allAuthenticatedUsers) {
				return resource.Errorf(codes.FailedPrecondition,
					"the member %s is not allowed: public access prevention is enforced on bucket %s", m, b.Name).
					WithHint("set iamConfiguration.publicAccessPrevention to inherited first")
			}
			if err := a.checkMember(ctx, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkBinding(b Binding) error {
	if len(b.Condition) > 0 && string(b.Condition) != "null" {
		return resource.Unimplemented("a condition in the policy of a bucket (role " + b.Role[:min(len(b.Role), 80)] + ")").
			WithHint("bind the role without a condition")
	}
	if _, ok := storageRole(b.Role); !ok || !strings.HasPrefix(b.Role, storageRolePrefix) {
		return resource.Invalid("role", "role %.120q is not supported for a bucket", b.Role).
			WithHint("use roles/storage.* of: %s", strings.Join(storageRoles(), ", "))
	}
	return nil
}

func (a *Authority) checkMember(ctx context.Context, member string) error {
	kind, value, _ := strings.Cut(member, ":")
	bad := func() error {
		return resource.Invalid("members", "%.200q is not a member that a policy can name", member).
			WithHint("use user:EMAIL, serviceAccount:EMAIL, domain:DOMAIN, projectViewer|projectEditor|projectOwner:PROJECT, allUsers or allAuthenticatedUsers")
	}
	switch kind {
	case allUsers, allAuthenticatedUsers:
		if member != kind {
			return bad()
		}
		return nil
	case "user":
		if addr, err := mail.ParseAddress(value); err != nil || addr.Address != value {
			return bad()
		}
		if _, ours := ServiceAccountProject(value); ours {
			return resource.Invalid("members", "%.200q is a service account", member).WithHint("write serviceAccount:%s", value)
		}
		return nil
	case "serviceAccount":
		_, _, err := a.ServiceAccount(ctx, value)
		return err
	case "domain":
		if value == "" || strings.ContainsAny(value, "@ /:") || !strings.Contains(value, ".") {
			return bad()
		}
		return nil
	case "projectViewer", "projectEditor", "projectOwner":
		_, err := a.ProjectID(ctx, value)
		return err
	case "group":
		return resource.Unimplemented("the member " + member[:min(len(member), 200)] + " of a policy: groups are not known here").
			WithHint("name its users one by one, or domain:DOMAIN")
	default:
		return bad()
	}
}

// AuthorizeBucket answers whether p has a permission on a bucket: by a role in
// its project, or by the bucket's policy. nil is yes; a caller who shows no
// credential is told to, any other is denied.
func (a *Authority) AuthorizeBucket(ctx context.Context, p Principal, b Bucket, permission string) error {
	err := a.Authorize(ctx, p, b.Project, permission)
	switch resource.CodeOf(err) {
	case codes.OK:
		return nil
	case codes.Unauthenticated, codes.PermissionDenied:
	default:
		return err
	}
	for _, binding := range b.Policy.Bindings {
		if !roleGrants(binding.Role, permission) {
			continue
		}
		for _, m := range binding.Members {
			if yes, merr := a.isMember(ctx, p, b, m); merr != nil || yes {
				return merr
			}
		}
	}
	return err
}

// isMember decides whether p is meant. An e-mail address counts only where it is
// proved: who administers a project may write any address into a token, which
// must open no door of another project.
func (a *Authority) isMember(ctx context.Context, p Principal, b Bucket, member string) (bool, error) {
	kind, value, _ := strings.Cut(member, ":")
	switch kind {
	case allUsers:
		return !b.PrivateOnly, nil
	case allAuthenticatedUsers:
		return !b.PrivateOnly && !p.Anonymous(), nil
	}
	if p.Anonymous() {
		return false, nil
	}
	proved := p.Vouched || p.roleIn(b.Project) != ""
	_, machine := ServiceAccountProject(p.Email)
	switch kind {
	case "user":
		return proved && !machine && strings.EqualFold(p.Email, value), nil
	case "domain":
		_, domain, _ := strings.Cut(p.Email, "@")
		return proved && !machine && strings.EqualFold(domain, value), nil
	case "serviceAccount":
		if !machine {
			return false, nil
		}
		_, account, err := a.ServiceAccount(ctx, value)
		if resource.IsNotFound(err) {
			return false, nil // the number of a project that is gone
		}
		return err == nil && account == p.Email, err
	case "projectViewer", "projectEditor", "projectOwner":
		id, err := a.ProjectID(ctx, value)
		if resource.IsNotFound(err) {
			return false, nil
		}
		least := map[string]Role{"projectViewer": Viewer, "projectEditor": User, "projectOwner": Admin}[kind]
		return err == nil && p.roleIn(id).rank() >= least.rank(), err
	}
	return false, nil
}

// AuthorizeMissing answers whether p may learn that a bucket does not exist: nil
// for who could have the permission in some project. To all others a missing
// bucket looks like one that is closed to them.
func (a *Authority) AuthorizeMissing(p Principal, bucket, permission string) error {
	if p.Anonymous() {
		return unauthenticated("%s needs a token: the request has none", permission)
	}
	if a.policy.allows(p.roleIn("*"), permission) {
		return nil
	}
	for project := range p.Grants {
		if a.policy.allows(p.roleIn(project), permission) {
			return nil
		}
	}
	return resource.Errorf(codes.PermissionDenied, "permission %q denied to %q on bucket %s (or it may not exist)", permission, p.Email, bucket)
}
