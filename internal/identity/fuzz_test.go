package identity_test

import (
	"encoding/json"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// FuzzBucketPolicy: a policy is refused as the client's mistake, or it is one whose
// members can be asked about; and the anonymous get in by allUsers alone.
func FuzzBucketPolicy(f *testing.F) {
	a := newFixtureFor(f)
	for _, seed := range []string{
		`{"version":1,"bindings":[{"role":"roles/storage.objectViewer","members":["allUsers","user:ann@example.com"]}]}`,
		`{"bindings":[{"role":"roles/storage.admin","members":["projectViewer:p","domain:example.com","serviceAccount:a@p.iam.tategu.internal"]}]}`,
		`{"bindings":[{"role":"roles/storage.objectViewer","members":["group:a@b.c"],"condition":{"expression":"true"}}]}`,
		`{"version":3,"bindings":[{"role":"roles/viewer","members":["","user:","allUsers:x","deleted:user:a@b.c?uid=1"]}]}`,
	} {
		f.Add(seed)
	}
	caller := identity.Principal{Email: "ann@example.com", Vouched: true, Grants: map[string]identity.Role{"p": identity.Viewer}}
	f.Fuzz(func(t *testing.T, text string) {
		b := identity.Bucket{Name: "b", Project: "q"}
		if json.Unmarshal([]byte(text), &b.Policy) != nil {
			return
		}
		switch err := a.CheckBucketPolicy(t.Context(), b); resource.CodeOf(err) {
		case codes.OK:
		case codes.InvalidArgument, codes.NotFound, codes.Unimplemented:
			return
		default:
			t.Fatalf("%s: %v", text, err)
		}
		for _, p := range []identity.Principal{caller, {}} {
			err := a.AuthorizeBucket(t.Context(), p, b, "storage.objects.get")
			switch code := resource.CodeOf(err); {
			case code == codes.OK && p.Anonymous() && !opens(b.Policy):
				t.Errorf("%s lets everybody in", text)
			case code != codes.OK && code != codes.PermissionDenied && code != codes.Unauthenticated:
				t.Errorf("%s: %v", text, err)
			}
		}
	})
}

func opens(p identity.BucketPolicy) bool {
	for _, b := range p.Bindings {
		if slices.Contains(b.Members, "allUsers") {
			return true
		}
	}
	return false
}

// FuzzAuthenticate: what nobody signed proves nobody.
func FuzzAuthenticate(f *testing.F) {
	a := newFixtureFor(f)
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJhIn0.")
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6IjAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkifQ.eyJpYXQiOjEsImV4cCI6MX0.AA")
	f.Add("tgu_abcdefghijklmnop_abcdefghijklmnopqrstuvwxyz")
	f.Fuzz(func(t *testing.T, bearer string) {
		for _, try := range []func() error{
			func() error { _, err := a.Authenticate(t.Context(), bearer); return err },
			func() error {
				_, err := a.Exchange(t.Context(), bearer, "https://oauth2.googleapis.com/token")
				return err
			},
		} {
			if err := try(); resource.CodeOf(err) != codes.Unauthenticated {
				t.Errorf("%q: %v", bearer, err)
			}
		}
	})
}
