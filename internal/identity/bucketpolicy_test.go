package identity_test

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
)

func bucketWith(role string, members ...string) identity.Bucket {
	return identity.Bucket{
		Name: "b", Project: "p",
		Policy: identity.BucketPolicy{Version: 1, Bindings: []identity.Binding{{Role: role, Members: members}}},
	}
}

// TestBucketRoles says of each role what it opens, and that nothing else is.
func TestBucketRoles(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	all := strings.Fields(`buckets.get buckets.list buckets.update buckets.delete buckets.getIamPolicy buckets.setIamPolicy
		objects.get objects.list objects.create objects.update objects.delete objects.getIamPolicy objects.setIamPolicy
		multipartUploads.create multipartUploads.list rockets.launch`)
	for role, opens := range map[string]string{
		"objectViewer":       "objects.get objects.list",
		"objectCreator":      "objects.create multipartUploads.create",
		"objectUser":         "objects.get objects.list objects.create objects.update objects.delete multipartUploads.create multipartUploads.list",
		"objectAdmin":        "objects.get objects.list objects.create objects.update objects.delete objects.getIamPolicy objects.setIamPolicy multipartUploads.create multipartUploads.list",
		"bucketViewer":       "buckets.get buckets.list",
		"admin":              strings.Join(all[:len(all)-1], " "),
		"legacyBucketReader": "buckets.get objects.list multipartUploads.list",
		"legacyBucketWriter": "buckets.get objects.list objects.create objects.delete multipartUploads.create multipartUploads.list",
		"legacyBucketOwner":  "buckets.get buckets.update buckets.getIamPolicy buckets.setIamPolicy objects.list objects.create objects.delete multipartUploads.create multipartUploads.list",
		"legacyObjectReader": "objects.get",
		"legacyObjectOwner":  "objects.get objects.update objects.getIamPolicy objects.setIamPolicy",
		"nonsense":           "",
	} {
		p := f.principal(t, "ann@example.com", map[string]identity.Role{"elsewhere": identity.Viewer})
		b := bucketWith("roles/storage."+role, "allAuthenticatedUsers")
		for _, permission := range all {
			want := codes.PermissionDenied
			for open := range strings.FieldsSeq(opens) {
				if open == permission {
					want = codes.OK
				}
			}
			wantCode(t, role+" "+permission, f.AuthorizeBucket(t.Context(), p, b, "storage."+permission), want)
		}
	}
	p := f.principal(t, "ann@example.com", map[string]identity.Role{"elsewhere": identity.Viewer})
	wantCode(t, "a role without its prefix", f.AuthorizeBucket(t.Context(), p, bucketWith("admin", "allUsers"), "storage.objects.get"), codes.PermissionDenied)
}

// TestBucketMembers says who is meant by a member.
func TestBucketMembers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	number, err := f.ProjectNumber(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	vouched := func(email string, grants map[string]identity.Role) identity.Principal {
		secret, _, err := f.CreateToken(t.Context(), identity.TokenSpec{Email: email, Grants: grants, Vouched: true})
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.Authenticate(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	task, err := f.OpenTask(t.Context(), identity.TaskSpec{ID: "t", Project: "q", ServiceAccount: "sam@q.iam.tategu.internal"})
	if err != nil {
		t.Fatal(err)
	}
	access, err := f.TaskToken(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	sam, err := f.Authenticate(t.Context(), access.Token)
	if err != nil {
		t.Fatal(err)
	}
	var nobody identity.Principal
	ann := vouched("ann@example.com", map[string]identity.Role{"q": identity.Viewer})
	// An administrator of project q may write any address into a token.
	forged := f.principal(t, "ann@example.com", map[string]identity.Role{"q": identity.Admin})
	for _, tt := range []struct {
		member string
		p      identity.Principal
		want   codes.Code
	}{
		{"user:ann@example.com", ann, codes.OK},
		{"user:ANN@example.com", ann, codes.OK},
		{"user:ann@example.com", forged, codes.PermissionDenied},
		{"user:bob@example.com", ann, codes.PermissionDenied},
		{"user:ann@example.com", nobody, codes.Unauthenticated},
		{"user:", nobody, codes.Unauthenticated},
		{"user:sam@q.iam.tategu.internal", sam, codes.PermissionDenied},
		{"domain:example.com", ann, codes.OK},
		{"domain:example.com", forged, codes.PermissionDenied},
		{"domain:ample.com", ann, codes.PermissionDenied},
		{"domain:q.iam.tategu.internal", sam, codes.PermissionDenied},
		{"serviceAccount:sam@q.iam.tategu.internal", sam, codes.OK},
		{"serviceAccount:sam@q.iam.gserviceaccount.com", sam, codes.OK},
		{"serviceAccount:sam@p.iam.tategu.internal", sam, codes.PermissionDenied},
		{"serviceAccount:ann@example.com", ann, codes.PermissionDenied},
		{"allUsers", nobody, codes.OK},
		{"allUsers", ann, codes.OK},
		{"allAuthenticatedUsers", nobody, codes.Unauthenticated},
		{"allAuthenticatedUsers", ann, codes.OK},
		{"projectViewer:q", ann, codes.OK},
		{"projectViewer:" + number, ann, codes.OK},
		{"projectEditor:q", ann, codes.PermissionDenied},
		{"projectEditor:q", sam, codes.OK},
		{"projectOwner:q", forged, codes.OK},
		{"projectOwner:q", sam, codes.PermissionDenied},
		{"projectViewer:r", ann, codes.PermissionDenied},
		{"projectViewer:111111111111", ann, codes.PermissionDenied},
		{"group:all@example.com", ann, codes.PermissionDenied},
		{"", nobody, codes.Unauthenticated},
	} {
		b := bucketWith("roles/storage.objectViewer", tt.member)
		wantCode(t, tt.member+" as "+tt.p.Email, f.AuthorizeBucket(t.Context(), tt.p, b, "storage.objects.get"), tt.want)
		b.PrivateOnly = true
		if strings.HasPrefix(tt.member, "all") {
			if err := f.AuthorizeBucket(t.Context(), tt.p, b, "storage.objects.get"); err == nil {
				t.Errorf("%s opens a bucket whose public access is prevented", tt.member)
			}
		}
	}
	owner := f.principal(t, "own@example.com", map[string]identity.Role{"p": identity.Viewer})
	wantCode(t, "a role in the project", f.AuthorizeBucket(t.Context(), owner, bucketWith("roles/storage.objectCreator"), "storage.objects.get"), codes.OK)
}

func TestCheckBucketPolicy(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	many := make([]string, 1501)
	for i := range many {
		many[i] = "user:ann@example.com"
	}
	for _, tt := range []struct {
		role    string
		members []string
		code    codes.Code
		part    string
	}{
		{"roles/storage.objectViewer", []string{"user:ann@example.com", "allUsers", "domain:example.com", "projectViewer:p", "serviceAccount:a@p.iam.tategu.internal"}, codes.OK, ""},
		{"roles/storage.objectViewer", nil, codes.OK, ""},
		{"roles/viewer", []string{"allUsers"}, codes.InvalidArgument, `"roles/viewer" is not supported`},
		{"objectViewer", []string{"allUsers"}, codes.InvalidArgument, `"objectViewer"`},
		{"projects/p/roles/mine", nil, codes.InvalidArgument, "projects/p/roles/mine"},
		{"roles/storage.objectViewer", []string{"ann@example.com"}, codes.InvalidArgument, `"ann@example.com"`},
		{"roles/storage.objectViewer", []string{"user:ann"}, codes.InvalidArgument, `"user:ann"`},
		{"roles/storage.objectViewer", []string{"user:a@p.iam.tategu.internal"}, codes.InvalidArgument, "serviceAccount:"},
		{"roles/storage.objectViewer", []string{"serviceAccount:ann@example.com"}, codes.InvalidArgument, "ann@example.com"},
		{"roles/storage.objectViewer", []string{"group:all@example.com"}, codes.Unimplemented, "group:all@example.com"},
		{"roles/storage.objectViewer", []string{"deleted:user:a@b.c?uid=1"}, codes.InvalidArgument, "deleted:user"},
		{"roles/storage.objectViewer", []string{"allUsers:x"}, codes.InvalidArgument, "allUsers:x"},
		{"roles/storage.objectViewer", []string{"domain:"}, codes.InvalidArgument, "domain:"},
		{"roles/storage.objectViewer", []string{"projectViewer:111111111111"}, codes.NotFound, "111111111111"},
		{"roles/storage.objectViewer", []string{"projectViewer:a/b"}, codes.InvalidArgument, "a/b"},
		{"roles/storage.objectViewer", many, codes.InvalidArgument, "at most 1500"},
	} {
		err := f.CheckBucketPolicy(t.Context(), bucketWith(tt.role, tt.members...))
		wantCode(t, tt.role+" "+strings.Join(tt.members[:min(1, len(tt.members))], " "), err, tt.code)
		if err != nil && !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%v does not name %s", err, tt.part)
		}
	}
	b := bucketWith("roles/storage.objectViewer", "allUsers")
	b.PrivateOnly = true
	wantCode(t, "public access prevention", f.CheckBucketPolicy(t.Context(), b), codes.FailedPrecondition)
	b = bucketWith("roles/storage.objectViewer", "allUsers")
	b.Policy.Bindings[0].Condition = json.RawMessage(`{"expression":"true"}`)
	wantCode(t, "condition", f.CheckBucketPolicy(t.Context(), b), codes.Unimplemented)
	b.Policy.Bindings[0].Condition, b.Policy.Version = nil, 2
	wantCode(t, "version 2", f.CheckBucketPolicy(t.Context(), b), codes.InvalidArgument)
}

func TestMissingBucket(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	viewer := f.principal(t, "ann@example.com", map[string]identity.Role{"a": identity.Viewer})
	wantCode(t, "viewer reads", f.AuthorizeMissing(viewer, "b", "storage.buckets.get"), codes.OK)
	wantCode(t, "viewer deletes", f.AuthorizeMissing(viewer, "b", "storage.buckets.delete"), codes.PermissionDenied)
	wantCode(t, "operator", f.AuthorizeMissing(identity.OperatorPrincipal(), "b", "storage.buckets.delete"), codes.OK)
	wantCode(t, "no role at all", f.AuthorizeMissing(identity.Principal{Email: "x@example.com"}, "b", "storage.buckets.get"), codes.PermissionDenied)
	wantCode(t, "nobody", f.AuthorizeMissing(identity.Principal{}, "b", "storage.buckets.get"), codes.Unauthenticated)
}
