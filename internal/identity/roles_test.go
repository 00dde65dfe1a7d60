package identity_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
)

// TestRoles walks verbs: who may, by the lowest role that can.
func TestRoles(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	principals := map[identity.Role]identity.Principal{}
	for _, role := range []identity.Role{identity.Viewer, identity.User, identity.Admin} {
		principals[role] = f.principal(t, string(role)+"@a.com", map[string]identity.Role{"a": role})
	}
	order := []identity.Role{identity.Viewer, identity.User, identity.Admin}
	for _, tt := range []struct {
		lowest      identity.Role
		permissions string
	}{
		{identity.Viewer, `aiplatform.models.get aiplatform.models.list aiplatform.endpoints.get aiplatform.endpoints.list
			aiplatform.pipelineJobs.get aiplatform.customJobs.list aiplatform.batchPredictionJobs.get aiplatform.operations.get
			aiplatform.contexts.list aiplatform.contexts.queryContextLineageSubgraph aiplatform.locations.get
			storage.buckets.get storage.buckets.list storage.objects.get storage.objects.list resourcemanager.projects.get`},
		{identity.User, `aiplatform.models.upload aiplatform.models.update aiplatform.models.delete aiplatform.endpoints.create
			aiplatform.endpoints.deploy aiplatform.endpoints.undeploy aiplatform.endpoints.delete aiplatform.endpoints.predict
			aiplatform.endpoints.explain aiplatform.pipelineJobs.create aiplatform.pipelineJobs.cancel aiplatform.pipelineJobs.delete
			aiplatform.customJobs.create aiplatform.batchPredictionJobs.create aiplatform.schedules.pause aiplatform.operations.cancel
			aiplatform.contexts.create aiplatform.executions.addExecutionEvents aiplatform.metadataStores.create
			storage.buckets.create storage.objects.create storage.objects.update storage.objects.delete iam.serviceAccounts.actAs`},
		{identity.Admin, `storage.buckets.update storage.buckets.delete storage.buckets.setIamPolicy storage.objects.setIamPolicy
			resourcemanager.projects.setIamPolicy tategu.tokens.create tategu.tokens.delete tategu.audit.list
			aiplatform.models.neverHeardOf aiplatform.rockets.launch nonsense x.y.z aiplatform.models. .. *`},
	} {
		for permission := range strings.FieldsSeq(tt.permissions) {
			allowed := false
			for _, role := range order {
				allowed = allowed || role == tt.lowest
				want := codes.PermissionDenied
				if allowed {
					want = codes.OK
				}
				wantCode(t, string(role)+" "+permission, f.Authorize(t.Context(), principals[role], "a", permission), want)
				// Whatever the role in a, project b stays shut.
				wantCode(t, string(role)+" "+permission+" in b", f.Authorize(t.Context(), principals[role], "b", permission), codes.PermissionDenied)
				wantCode(t, string(role)+" "+permission+" in every project", f.Authorize(t.Context(), principals[role], "", permission), codes.PermissionDenied)
			}
			wantCode(t, "operator "+permission, f.Authorize(t.Context(), identity.OperatorPrincipal(), "b", permission), codes.OK)
			wantCode(t, "nobody "+permission, f.Authorize(t.Context(), identity.Principal{}, "a", permission), codes.Unauthenticated)
			stranger := identity.Principal{Email: "x@y.z", Grants: map[string]identity.Role{"a": "owner"}}
			wantCode(t, "unknown role "+permission, f.Authorize(t.Context(), stranger, "a", permission), codes.PermissionDenied)
		}
	}
	viewer := principals[identity.Viewer]
	wantCode(t, "public", f.Authorize(t.Context(), viewer, "", identity.Public), codes.OK)
	wantCode(t, "public, nobody", f.Authorize(t.Context(), identity.Principal{}, "", identity.Public), codes.Unauthenticated)
	wantCode(t, "a method without permission", f.Authorize(t.Context(), identity.OperatorPrincipal(), "a", ""), codes.PermissionDenied)
	wantCode(t, "project *", f.Authorize(t.Context(), viewer, "*", "aiplatform.models.get"), codes.InvalidArgument)
}

func TestDenialsNameWhatIsMissing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.principal(t, "ann@example.com", map[string]identity.Role{"a": identity.Viewer})
	err := f.Authorize(t.Context(), p, "a", "aiplatform.endpoints.deploy")
	for _, want := range []string{"aiplatform.endpoints.deploy", "ann@example.com", `"a"`, "tategu token create --role user --project 'a' --email ann@example.com"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestActAs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	numberA, err := f.ProjectNumber(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	numberB, err := f.ProjectNumber(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	user := f.principal(t, "user@a.com", map[string]identity.Role{"a": identity.User, "b": identity.Viewer})
	for _, tt := range []struct {
		email, canonical string
		want             codes.Code
	}{
		{"default@a.iam.tategu.internal", "default@a.iam.tategu.internal", codes.OK},
		{"train@a.iam.tategu.internal", "train@a.iam.tategu.internal", codes.OK},
		{"train@a.iam.gserviceaccount.com", "train@a.iam.tategu.internal", codes.OK},
		{numberA + "-compute@developer.gserviceaccount.com", "default@a.iam.tategu.internal", codes.OK},
		{"default@b.iam.tategu.internal", "default@b.iam.tategu.internal", codes.PermissionDenied},
		{"x@b.iam.gserviceaccount.com", "x@b.iam.tategu.internal", codes.PermissionDenied},
		{numberB + "-compute@developer.gserviceaccount.com", "default@b.iam.tategu.internal", codes.PermissionDenied},
		{"123-compute@developer.gserviceaccount.com", "", codes.PermissionDenied},
		{"x@*.iam.tategu.internal", "", codes.InvalidArgument},
		{"x@" + numberB + ".iam.tategu.internal", "", codes.InvalidArgument},
		{"a@b@a.iam.tategu.internal", "", codes.InvalidArgument},
		{"@a.iam.tategu.internal", "", codes.InvalidArgument},
		{"x@a.iam.tategu.internal.evil.com", "", codes.InvalidArgument},
		{"boss@gmail.com", "", codes.InvalidArgument},
		{"", "", codes.InvalidArgument},
	} {
		wantCode(t, tt.email, f.ActAs(ctx, user, tt.email), tt.want)
		if _, got, _ := f.ServiceAccount(ctx, tt.email); got != tt.canonical {
			t.Errorf("ServiceAccount(%s) = %s, want %s", tt.email, got, tt.canonical)
		}
	}
	wantCode(t, "viewer", f.ActAs(ctx, user, "default@b.iam.tategu.internal"), codes.PermissionDenied)
	wantCode(t, "operator", f.ActAs(ctx, identity.OperatorPrincipal(), "x@b.iam.tategu.internal"), codes.OK)
	wantCode(t, "nobody", f.ActAs(ctx, identity.Principal{}, "x@a.iam.tategu.internal"), codes.Unauthenticated)
}
