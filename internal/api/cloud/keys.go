package cloud

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"
	"cloud.google.com/go/iam/credentials/apiv1/credentialspb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/api"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// maxBlob bounds what is signed; strings to sign are a few hundred bytes.
const maxBlob = 64 << 10

// keyMethods are the keys of service accounts (google.iam.admin.v1) and signing
// with the server's own ones (google.iam.credentials.v1). The name of an account
// may leave out its project (projects/-), so the permission is asked for here.
func (s *Service) keyMethods() []api.Method {
	const admin, signing = "google.iam.admin.v1.IAM/", "google.iam.credentials.v1.IAMCredentials/"
	return []api.Method{
		api.Unary(admin+"CreateServiceAccountKey", api.Public, s.createKey),
		api.Unary(admin+"ListServiceAccountKeys", api.Public, s.listKeys),
		api.Unary(admin+"GetServiceAccountKey", api.Public, s.getKey),
		api.Unary(admin+"DeleteServiceAccountKey", api.Public, s.deleteKey),
		api.Unary(signing+"SignBlob", api.Public, s.signBlob),
		api.Unary(signing+"SignJwt", api.Public, s.signJWT),
	}
}

// account reads projects/{PROJECT|-}/serviceAccounts/EMAIL[/keys/ID], and asks
// whether the caller has a permission on the account.
func (s *Service) account(ctx context.Context, name, permission string) (email, key string, err error) {
	parts := strings.Split(name, "/")
	if len(parts) != 4 && (len(parts) != 6 || parts[4] != "keys") || parts[0] != "projects" || parts[2] != "serviceAccounts" {
		return "", "", resource.Invalid("name", "%.200q is not the name of a service account or its key", name).
			WithHint("write projects/-/serviceAccounts/EMAIL")
	}
	if err := s.authority.OnAccount(ctx, identity.FromContext(ctx), parts[3], permission); err != nil {
		return "", "", err
	}
	project, email, err := s.authority.ServiceAccount(ctx, parts[3])
	if err != nil {
		return "", "", err
	}
	if parts[1] != "-" {
		named, err := s.authority.ProjectID(ctx, parts[1])
		if err != nil {
			return "", "", err
		}
		if named != project {
			return "", "", resource.NotFound(name).WithHint("%s belongs to project %s", email, project)
		}
	}
	if len(parts) == 6 {
		key = parts[5]
	}
	return email, key, nil
}

func keyMessage(k identity.AccountKey) *adminpb.ServiceAccountKey {
	m := &adminpb.ServiceAccountKey{
		Name:           "projects/" + k.Project + "/serviceAccounts/" + k.Email + "/keys/" + k.ID,
		KeyAlgorithm:   adminpb.ServiceAccountKeyAlgorithm_KEY_ALG_RSA_2048,
		ValidAfterTime: timestamppb.New(k.Created), ValidBeforeTime: timestamppb.New(k.Expires()),
		KeyOrigin: adminpb.ServiceAccountKeyOrigin_GOOGLE_PROVIDED, KeyType: adminpb.ListServiceAccountKeysRequest_USER_MANAGED,
	}
	if k.System {
		m.KeyType = adminpb.ListServiceAccountKeysRequest_SYSTEM_MANAGED
	}
	return m
}

func (s *Service) createKey(ctx context.Context, req *adminpb.CreateServiceAccountKeyRequest) (*adminpb.ServiceAccountKey, error) {
	email, _, err := s.account(ctx, req.GetName(), identity.PermissionCreateKeys)
	if err != nil {
		return nil, err
	}
	switch req.GetPrivateKeyType() {
	case adminpb.ServiceAccountPrivateKeyType_TYPE_UNSPECIFIED, adminpb.ServiceAccountPrivateKeyType_TYPE_GOOGLE_CREDENTIALS_FILE:
	default:
		return nil, resource.Unimplemented("private key type " + req.GetPrivateKeyType().String()).WithHint("use TYPE_GOOGLE_CREDENTIALS_FILE")
	}
	switch req.GetKeyAlgorithm() {
	case adminpb.ServiceAccountKeyAlgorithm_KEY_ALG_UNSPECIFIED, adminpb.ServiceAccountKeyAlgorithm_KEY_ALG_RSA_2048:
	default:
		return nil, resource.Unimplemented("key algorithm " + req.GetKeyAlgorithm().String()).WithHint("use KEY_ALG_RSA_2048")
	}
	k, private, err := s.authority.CreateAccountKey(ctx, email)
	if err != nil {
		return nil, err
	}
	file, err := identity.KeyFile(k, private, s.tokenURL())
	if err != nil {
		return nil, err
	}
	m := keyMessage(k)
	m.PrivateKeyType, m.PrivateKeyData = adminpb.ServiceAccountPrivateKeyType_TYPE_GOOGLE_CREDENTIALS_FILE, file
	return m, nil
}

func (s *Service) listKeys(ctx context.Context, req *adminpb.ListServiceAccountKeysRequest) (*adminpb.ListServiceAccountKeysResponse, error) {
	email, _, err := s.account(ctx, req.GetName(), identity.PermissionListKeys)
	if err != nil {
		return nil, err
	}
	keys, err := s.authority.AccountKeys(ctx, email)
	if err != nil {
		return nil, err
	}
	resp := &adminpb.ListServiceAccountKeysResponse{}
	for _, k := range keys {
		m := keyMessage(k)
		if types := req.GetKeyTypes(); len(types) > 0 && !slices.Contains(types, m.KeyType) {
			continue
		}
		resp.Keys = append(resp.Keys, m)
	}
	return resp, nil
}

func (s *Service) getKey(ctx context.Context, req *adminpb.GetServiceAccountKeyRequest) (*adminpb.ServiceAccountKey, error) {
	email, id, err := s.account(ctx, req.GetName(), identity.PermissionGetKeys)
	if err != nil {
		return nil, err
	}
	k, err := s.authority.AccountKey(ctx, email, id)
	if err != nil {
		return nil, err
	}
	m := keyMessage(k)
	switch req.GetPublicKeyType() {
	case adminpb.ServiceAccountPublicKeyType_TYPE_NONE:
	case adminpb.ServiceAccountPublicKeyType_TYPE_X509_PEM_FILE:
		m.PublicKeyData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate})
	case adminpb.ServiceAccountPublicKeyType_TYPE_RAW_PUBLIC_KEY:
		public, err := k.Public()
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return nil, err
		}
		m.PublicKeyData = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	default:
		return nil, resource.Invalid("public_key_type", "%v is not a type of public key", req.GetPublicKeyType())
	}
	return m, nil
}

func (s *Service) deleteKey(ctx context.Context, req *adminpb.DeleteServiceAccountKeyRequest) (*emptypb.Empty, error) {
	email, id, err := s.account(ctx, req.GetName(), identity.PermissionDeleteKeys)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.authority.DeleteAccountKey(ctx, email, id)
}

// signBlob lets callers who may act as an account sign with it, which is how
// clients without a key file make signed URLs.
func (s *Service) signBlob(ctx context.Context, req *credentialspb.SignBlobRequest) (*credentialspb.SignBlobResponse, error) {
	email, err := s.signer(ctx, req.GetName(), req.GetDelegates(), identity.PermissionSignBlob)
	if err != nil {
		return nil, err
	}
	if n := len(req.GetPayload()); n == 0 || n > maxBlob {
		return nil, resource.Invalid("payload", "a payload has 1 to %d bytes, not %d", maxBlob, n)
	}
	resp := &credentialspb.SignBlobResponse{}
	resp.KeyId, resp.SignedBlob, err = s.authority.SignBlob(ctx, email, req.GetPayload())
	return resp, err
}

func (s *Service) signJWT(ctx context.Context, req *credentialspb.SignJwtRequest) (*credentialspb.SignJwtResponse, error) {
	email, err := s.signer(ctx, req.GetName(), req.GetDelegates(), identity.PermissionSignJWT)
	if err != nil {
		return nil, err
	}
	var claims map[string]any
	dec := json.NewDecoder(strings.NewReader(req.GetPayload()))
	dec.UseNumber()
	if len(req.GetPayload()) > maxBlob || dec.Decode(&claims) != nil || claims == nil || dec.More() {
		return nil, resource.Invalid("payload", "the payload is not the JSON object of a JWT's claims, of at most %d bytes", maxBlob)
	}
	resp := &credentialspb.SignJwtResponse{}
	resp.KeyId, resp.SignedJwt, err = s.authority.SignJWT(ctx, email, claims)
	return resp, err
}

func (s *Service) signer(ctx context.Context, name string, delegates []string, permission string) (email string, err error) {
	if len(delegates) > 0 {
		return "", resource.Unimplemented("delegates in a request to sign")
	}
	email, key, err := s.account(ctx, name, permission)
	if err == nil && key != "" {
		return "", resource.Invalid("name", "%.200q is not the name of a service account", name)
	}
	return email, err
}
