package identity_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
)

const (
	sam      = "sam@a.iam.tategu.internal"
	endpoint = "https://oauth2.googleapis.com/token"
)

func (f *fixture) key(t *testing.T, email string) (identity.AccountKey, *rsa.PrivateKey) {
	t.Helper()
	k, private, err := f.CreateAccountKey(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	return k, private
}

// signed makes a JWT as client libraries do.
func signed(t *testing.T, method jwt.SigningMethod, key any, header, claims map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	maps.Copy(token.Header, header)
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	k, private := f.key(t, "sam@a.iam.gserviceaccount.com")
	if k.Email != sam || k.Project != "a" || len(k.ID) != 40 || k.System {
		t.Errorf("key = %+v", k)
	}
	text, err := identity.KeyFile(k, private, "https://localhost:1/token")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]string
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(file["private_key"]))
	if block == nil || block.Type != "PRIVATE KEY" {
		t.Fatalf("private_key = %.40q", file["private_key"])
	}
	read, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil || !private.Equal(read) {
		t.Errorf("private_key is another key: %v", err)
	}
	for name, want := range map[string]string{
		"type": "service_account", "client_email": sam, "project_id": "a", "private_key_id": k.ID, "token_uri": "https://localhost:1/token",
	} {
		if file[name] != want {
			t.Errorf("%s = %q, want %q", name, file[name], want)
		}
	}
	// The private half is nowhere in the data directory.
	err = filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "accounts") {
			t.Errorf("the private half was kept: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAccountKeysEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var first identity.AccountKey
	var private *rsa.PrivateKey
	for i := range 10 {
		if k, p := f.key(t, sam); i == 0 {
			first, private = k, p
		}
	}
	if _, _, err := f.CreateAccountKey(t.Context(), sam); err == nil {
		t.Error("an eleventh key was made")
	} else {
		wantCode(t, "eleventh key", err, codes.ResourceExhausted)
	}
	keys, err := f.AccountKeys(t.Context(), sam)
	if err != nil || len(keys) != 10 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	now := f.clock.Now().Unix()
	claims := map[string]any{"iss": sam, "sub": sam, "iat": now, "exp": now + 3600}
	kid := map[string]any{"kid": first.ID}
	bearer := signed(t, jwt.SigningMethodRS256, private, kid, claims)
	p, err := f.Authenticate(t.Context(), bearer)
	if err != nil || p.Email != sam || !p.Vouched || p.Grants["a"] != identity.User || len(p.Grants) != 1 {
		t.Errorf("self-signed: %+v, %v", p, err)
	}
	claims["aud"] = endpoint
	access, err := f.Exchange(t.Context(), signed(t, jwt.SigningMethodRS256, private, kid, claims), endpoint)
	if err != nil || access.Expires.Sub(f.clock.Now()) != time.Hour {
		t.Fatalf("exchange: %v, %v", access.Expires, err)
	}
	if p, expires, err := f.Describe(t.Context(), access.Token); err != nil || p.Email != sam || !expires.Equal(access.Expires) {
		t.Errorf("exchanged: %+v until %v, %v", p, expires, err)
	}
	wantCode(t, "revoke as a token", f.RevokeToken(t.Context(), identity.OperatorPrincipal(), p.TokenID), codes.NotFound)
	wantCode(t, "delete by another account", f.DeleteAccountKey(t.Context(), "eve@a.iam.tategu.internal", first.ID), codes.NotFound)
	wantCode(t, "delete", f.DeleteAccountKey(t.Context(), sam, first.ID), codes.OK)
	wantCode(t, "delete again", f.DeleteAccountKey(t.Context(), sam, first.ID), codes.NotFound)
	for name, token := range map[string]string{"self-signed": bearer, "exchanged": access.Token} {
		_, err := f.Authenticate(t.Context(), token)
		wantCode(t, name+" after the key's end", err, codes.Unauthenticated)
	}
	_, err = f.Exchange(t.Context(), signed(t, jwt.SigningMethodRS256, private, kid, claims), endpoint)
	wantCode(t, "exchange after the key's end", err, codes.Unauthenticated)
	message := []byte("m")
	_, err = f.VerifySignature(t.Context(), sam, message, signature(t, private, message))
	wantCode(t, "signature after the key's end", err, codes.PermissionDenied)
}

// TestForgedAssertions has what must not be believed, as bearer and as assertion.
func TestForgedAssertions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	k, private := f.key(t, sam)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	now := f.clock.Now().Unix()
	good := func(change ...any) map[string]any {
		c := map[string]any{"iss": sam, "sub": sam, "iat": now, "exp": now + 3600, "aud": endpoint}
		for i := 0; i < len(change); i += 2 {
			if name, ok := change[i].(string); ok {
				if c[name] = change[i+1]; change[i+1] == nil {
					delete(c, name)
				}
			}
		}
		return c
	}
	rs, kid := jwt.SigningMethodRS256, map[string]any{"kid": k.ID}
	valid := signed(t, rs, private, kid, good())
	for _, tt := range []struct {
		name string
		text string
		want codes.Code
	}{
		{"as it should be", valid, codes.OK},
		{"issued with a clock 4 minutes ahead", signed(t, rs, private, kid, good("iat", now+240, "exp", now+3840)), codes.OK},
		{"without a subject", signed(t, rs, private, kid, good("sub", nil)), codes.OK},
		{"a clock 6 minutes ahead", signed(t, rs, private, kid, good("iat", now+360, "exp", now+3960)), codes.Unauthenticated},
		{"expired", signed(t, rs, private, kid, good("iat", now-3601, "exp", now-1)), codes.Unauthenticated},
		{"for ten years", signed(t, rs, private, kid, good("exp", now+10*365*86400)), codes.Unauthenticated},
		{"for an hour and a second", signed(t, rs, private, kid, good("exp", now+3601)), codes.Unauthenticated},
		{"without an end", signed(t, rs, private, kid, good("exp", nil)), codes.Unauthenticated},
		{"without a beginning", signed(t, rs, private, kid, good("iat", nil)), codes.Unauthenticated},
		{"not yet", signed(t, rs, private, kid, good("nbf", now+60)), codes.Unauthenticated},
		{"another issuer", signed(t, rs, private, kid, good("iss", "eve@a.iam.tategu.internal", "sub", nil)), codes.Unauthenticated},
		{"for somebody else", signed(t, rs, private, kid, good("sub", "ann@example.com")), codes.Unauthenticated},
		{"another audience", signed(t, rs, private, kid, good("aud", "https://example.com/token")), codes.Unauthenticated},
		{"two audiences", signed(t, rs, private, kid, good("aud", []string{endpoint, "https://example.com"})), codes.Unauthenticated},
		{"no audience", signed(t, rs, private, kid, good("aud", nil)), codes.Unauthenticated},
		{"asks for an ID token", signed(t, rs, private, kid, good("target_audience", "https://example.com")), codes.Unauthenticated},
		{"a stranger's key under our id", signed(t, rs, stranger, kid, good()), codes.Unauthenticated},
		{"no key id", signed(t, rs, private, nil, good()), codes.Unauthenticated},
		{"key id is a path", signed(t, rs, private, map[string]any{"kid": "../../" + k.ID[:34]}, good()), codes.Unauthenticated},
		{"key id is long", signed(t, rs, private, map[string]any{"kid": strings.Repeat("a", 4000)}, good()), codes.Unauthenticated},
		{"key id is a number", signed(t, rs, private, map[string]any{"kid": 7}, good()), codes.Unauthenticated},
		{"no algorithm", signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid, good()), codes.Unauthenticated},
		{"the public key as a secret", signed(t, jwt.SigningMethodHS256, publicPEM, kid, good()), codes.Unauthenticated},
		{"RS384", signed(t, jwt.SigningMethodRS384, private, kid, good()), codes.Unauthenticated},
		{"PS256", signed(t, jwt.SigningMethodPS256, private, kid, good()), codes.Unauthenticated},
		{"cut short", valid[:len(valid)-4], codes.Unauthenticated},
		{"longer than 8 KiB", signed(t, rs, private, kid, good("x", strings.Repeat("a", 9000))), codes.Unauthenticated},
		{"no JWT", "ey.J.x", codes.Unauthenticated},
	} {
		_, err := f.Exchange(t.Context(), tt.text, endpoint)
		wantCode(t, tt.name, err, tt.want)
	}
	for audience, want := range map[string]codes.Code{
		"": codes.OK, "https://storage.googleapis.com/": codes.OK, "https://us-central1-aiplatform.googleapis.com/": codes.OK,
		endpoint: codes.Unauthenticated, "https://example.com/": codes.Unauthenticated, "http://storage.googleapis.com/": codes.Unauthenticated,
		"https://storage.googleapis.com@example.com/": codes.Unauthenticated, "https://evil-googleapis.com/": codes.Unauthenticated,
	} {
		_, err := f.Authenticate(t.Context(), signed(t, rs, private, kid, good("aud", audience)))
		wantCode(t, "bearer for "+audience, err, want)
	}
	_, err = f.Authenticate(t.Context(), signed(t, rs, stranger, kid, good("aud", nil)))
	wantCode(t, "bearer by a stranger", err, codes.Unauthenticated)
	p, err := f.Authenticate(t.Context(), signed(t, rs, private, kid, good("aud", nil, "scope", "x")))
	wantCode(t, "bearer", err, codes.OK)
	wantCode(t, "its own project", f.Authorize(t.Context(), p, "a", "storage.objects.create"), codes.OK)
	wantCode(t, "another project", f.Authorize(t.Context(), p, "b", "storage.objects.get"), codes.PermissionDenied)
	wantCode(t, "its own keys", f.OnAccount(t.Context(), p, sam, identity.PermissionCreateKeys), codes.PermissionDenied)
}

func TestServersOwnKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	message := []byte("string to sign")
	id, sig, err := f.SignBlob(t.Context(), sam, message)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.VerifySignature(t.Context(), sam, message, sig)
	if err != nil || p.Email != sam || !p.Signed || p.TokenID != id {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = f.VerifySignature(t.Context(), sam, []byte("another string"), sig)
	wantCode(t, "another message", err, codes.PermissionDenied)
	_, err = f.VerifySignature(t.Context(), "eve@a.iam.tategu.internal", message, sig)
	wantCode(t, "another account", err, codes.PermissionDenied)
	_, err = f.VerifySignature(t.Context(), "ann@example.com", message, sig)
	wantCode(t, "no account", err, codes.PermissionDenied)
	files, err := filepath.Glob(filepath.Join(f.dir, "keys", "accounts", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	f.open(t) // a restart
	again, _, err := f.SignBlob(t.Context(), sam, message)
	if err != nil || again != id {
		t.Errorf("another key after a restart: %s, %v", again, err)
	}
	wantCode(t, "delete", f.DeleteAccountKey(t.Context(), sam, id), codes.FailedPrecondition)
	_, token, err := f.SignJWT(t.Context(), sam, map[string]any{"iss": sam, "iat": f.clock.Now().Unix(), "exp": f.clock.Now().Unix() + 60})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := f.Authenticate(t.Context(), token); err != nil || p.Email != sam {
		t.Errorf("signJwt: %+v, %v", p, err)
	}
	if err := os.Chmod(files[0], 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err = f.SignBlob(t.Context(), sam, message)
	wantCode(t, "a key that others can read", err, codes.FailedPrecondition)
}

func signature(t *testing.T, key *rsa.PrivateKey, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	s, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return s
}
