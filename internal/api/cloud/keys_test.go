package cloud_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"
	"cloud.google.com/go/iam/credentials/apiv1/credentialspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

const up = "projects/-/serviceAccounts/up@a.iam.tategu.internal"

// call runs a method of the dispatch table as a caller.
func (f *fixture) call(t *testing.T, p identity.Principal, name string, req proto.Message) (proto.Message, error) {
	t.Helper()
	for _, m := range f.service.Methods() {
		if strings.HasSuffix(m.Name, "/"+name) {
			return m.Unary(identity.NewContext(context.WithoutCancel(t.Context()), p), req)
		}
	}
	t.Fatalf("no method %s", name)
	return nil, nil
}

func (f *fixture) principal(t *testing.T, project string, role identity.Role) identity.Principal {
	t.Helper()
	p, err := f.authority.Authenticate(t.Context(), f.token(t, string(role)+"@example.com", map[string]identity.Role{project: role}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestKeysOverTheAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	admin := f.principal(t, "a", identity.Admin)
	out, err := f.call(t, admin, "CreateServiceAccountKey", &adminpb.CreateServiceAccountKeyRequest{Name: up})
	if err != nil {
		t.Fatal(err)
	}
	made, ok := out.(*adminpb.ServiceAccountKey)
	if !ok {
		t.Fatalf("%T", out)
	}
	var file map[string]string
	if err := json.Unmarshal(made.PrivateKeyData, &file); err != nil || file["token_uri"] != "https://localhost:1/token" {
		t.Errorf("file: %v, %v", file, err)
	}
	if !strings.HasPrefix(made.Name, "projects/a/serviceAccounts/up@a.iam.tategu.internal/keys/") {
		t.Errorf("name = %q", made.Name)
	}
	for kind, block := range map[adminpb.ServiceAccountPublicKeyType]string{
		adminpb.ServiceAccountPublicKeyType_TYPE_X509_PEM_FILE: "CERTIFICATE", adminpb.ServiceAccountPublicKeyType_TYPE_RAW_PUBLIC_KEY: "PUBLIC KEY",
	} {
		out, err := f.call(t, admin, "GetServiceAccountKey", &adminpb.GetServiceAccountKeyRequest{Name: made.Name, PublicKeyType: kind})
		if err != nil {
			t.Fatal(err)
		}
		got, ok := out.(*adminpb.ServiceAccountKey)
		if !ok || len(got.PrivateKeyData) > 0 {
			t.Fatalf("%T with %d bytes of private key", out, len(got.GetPrivateKeyData()))
		}
		if b, _ := pem.Decode(got.PublicKeyData); b == nil || b.Type != block {
			t.Errorf("%v = %q", kind, got.PublicKeyData)
		} else if block == "CERTIFICATE" {
			if cert, err := x509.ParseCertificate(b.Bytes); err != nil || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
				t.Errorf("certificate: %v", err)
			}
		}
	}
	out, err = f.call(t, f.principal(t, "a", identity.User), "SignBlob", &credentialspb.SignBlobRequest{Name: up, Payload: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	signedBlob, ok := out.(*credentialspb.SignBlobResponse)
	if !ok {
		t.Fatalf("%T", out)
	}
	if _, err := f.authority.VerifySignature(t.Context(), "up@a.iam.tategu.internal", []byte("x"), signedBlob.SignedBlob); err != nil {
		t.Error(err)
	}
	types := func(kinds ...adminpb.ListServiceAccountKeysRequest_KeyType) []string {
		out, err := f.call(t, f.principal(t, "a", identity.Viewer), "ListServiceAccountKeys", &adminpb.ListServiceAccountKeysRequest{Name: up, KeyTypes: kinds})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		if list, ok := out.(*adminpb.ListServiceAccountKeysResponse); ok {
			for _, k := range list.Keys {
				names = append(names, k.KeyType.String())
			}
		}
		slices.Sort(names)
		return names
	}
	if got := types(); !slices.Equal(got, []string{"SYSTEM_MANAGED", "USER_MANAGED"}) {
		t.Errorf("keys: %q", got)
	}
	if got := types(adminpb.ListServiceAccountKeysRequest_USER_MANAGED); !slices.Equal(got, []string{"USER_MANAGED"}) {
		t.Errorf("keys of users: %q", got)
	}
	if _, err := f.call(t, admin, "DeleteServiceAccountKey", &adminpb.DeleteServiceAccountKeyRequest{Name: made.Name}); err != nil {
		t.Error(err)
	}
	_, err = f.call(t, admin, "GetServiceAccountKey", &adminpb.GetServiceAccountKeyRequest{Name: made.Name})
	if !resource.IsNotFound(err) {
		t.Errorf("a deleted key: %v", err)
	}
}

func TestKeyRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	admin, user, viewer := f.principal(t, "a", identity.Admin), f.principal(t, "a", identity.User), f.principal(t, "a", identity.Viewer)
	other := f.principal(t, "b", identity.Admin)
	create := &adminpb.CreateServiceAccountKeyRequest{Name: up}
	for _, tt := range []struct {
		name   string
		p      identity.Principal
		method string
		req    proto.Message
		want   codes.Code
	}{
		{"a viewer makes a key", viewer, "CreateServiceAccountKey", create, codes.PermissionDenied},
		{"a user makes a key", user, "CreateServiceAccountKey", create, codes.PermissionDenied},
		{"an admin of another project", other, "CreateServiceAccountKey", create, codes.PermissionDenied},
		{"an admin of another project lists", other, "ListServiceAccountKeys", &adminpb.ListServiceAccountKeysRequest{Name: up}, codes.PermissionDenied},
		{"a viewer signs", viewer, "SignBlob", &credentialspb.SignBlobRequest{Name: up, Payload: []byte("x")}, codes.PermissionDenied},
		{"a viewer signs a JWT", viewer, "SignJwt", &credentialspb.SignJwtRequest{Name: up, Payload: "{}"}, codes.PermissionDenied},
		{"an admin of another project signs", other, "SignBlob", &credentialspb.SignBlobRequest{Name: up, Payload: []byte("x")}, codes.PermissionDenied},
		{"nothing to sign", user, "SignBlob", &credentialspb.SignBlobRequest{Name: up}, codes.InvalidArgument},
		{"delegates", user, "SignBlob", &credentialspb.SignBlobRequest{Name: up, Payload: []byte("x"), Delegates: []string{up}}, codes.Unimplemented},
		{"claims that are no object", user, "SignJwt", &credentialspb.SignJwtRequest{Name: up, Payload: "[]"}, codes.InvalidArgument},
		{"claims that are null", user, "SignJwt", &credentialspb.SignJwtRequest{Name: up, Payload: "null"}, codes.InvalidArgument},
		{"another project in the name", admin, "CreateServiceAccountKey", &adminpb.CreateServiceAccountKeyRequest{Name: "projects/b/serviceAccounts/up@a.iam.tategu.internal"}, codes.NotFound},
		{"no account", admin, "CreateServiceAccountKey", &adminpb.CreateServiceAccountKeyRequest{Name: "projects/a/serviceAccounts/ann@example.com"}, codes.InvalidArgument},
		{"no name", admin, "CreateServiceAccountKey", &adminpb.CreateServiceAccountKeyRequest{Name: "projects/a"}, codes.InvalidArgument},
		{"a PKCS #12 file", admin, "CreateServiceAccountKey", &adminpb.CreateServiceAccountKeyRequest{Name: up, PrivateKeyType: adminpb.ServiceAccountPrivateKeyType_TYPE_PKCS12_FILE}, codes.Unimplemented},
		{"1024 bits", admin, "CreateServiceAccountKey", &adminpb.CreateServiceAccountKeyRequest{Name: up, KeyAlgorithm: adminpb.ServiceAccountKeyAlgorithm_KEY_ALG_RSA_1024}, codes.Unimplemented},
		{"an unknown key", admin, "DeleteServiceAccountKey", &adminpb.DeleteServiceAccountKeyRequest{Name: up + "/keys/x"}, codes.NotFound},
	} {
		_, err := f.call(t, tt.p, tt.method, tt.req)
		if got := resource.CodeOf(err); got != tt.want {
			t.Errorf("%s: %v (%v), want %v", tt.name, got, err, tt.want)
		}
	}
}
