package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Permissions on the keys of service accounts.
const (
	PermissionCreateKeys = "iam.serviceAccountKeys.create"
	PermissionListKeys   = "iam.serviceAccountKeys.list"
	PermissionGetKeys    = "iam.serviceAccountKeys.get"
	PermissionDeleteKeys = "iam.serviceAccountKeys.delete"
	PermissionSignBlob   = "iam.serviceAccounts.signBlob"
	PermissionSignJWT    = "iam.serviceAccounts.signJwt"
)

const (
	keyBits        = 2048
	maxAccountKeys = 10 // made by users, for one account (cloud.google.com/iam/quotas)
	keyIDLength    = 40
)

// AccountKey is the public half of a key of a service account.
type AccountKey struct {
	ID          string    `json:"id"` // hexadecimal, 40 characters
	Email       string    `json:"email"`
	Project     string    `json:"project"`
	System      bool      `json:"system,omitempty"` // ours, behind signBlob; its private half never leaves
	Created     time.Time `json:"created"`
	Certificate []byte    `json:"certificate"` // X.509, DER, signed with the key itself
	TokenID     string    `json:"tokenId,omitempty"`
}

// neverExpires is the end of keys as the cloud writes it.
func neverExpires() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// Expires is when the key ends if nobody deletes it.
func (k AccountKey) Expires() time.Time { return neverExpires() }

// Public gives the public half.
func (k AccountKey) Public() (*rsa.PublicKey, error) {
	cert, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.ID, err)
	}
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key %s holds a %T", k.ID, cert.PublicKey)
	}
	return public, nil
}

func (k AccountKey) principal() Principal {
	return Principal{Email: k.Email, Grants: map[string]Role{k.Project: User}, TokenID: k.ID, Vouched: true}
}

// kindAccountKeys holds AccountKeys as JSON; key id, parent the account's e-mail.
const kindAccountKeys store.Kind = "serviceAccountKeys"

// accountKey gives a key by its id, which may be anything that a caller sent.
func (a *Authority) accountKey(ctx context.Context, id string) (AccountKey, error) {
	if len(id) != keyIDLength || !isWord(id) {
		return AccountKey{}, resource.NotFound("keys/" + id[:min(len(id), 80)])
	}
	row, err := a.store.Get(ctx, kindAccountKeys, id)
	if err != nil {
		return AccountKey{}, err
	}
	return decodeKey(row)
}

func decodeKey(row store.Row) (AccountKey, error) {
	var k AccountKey
	if err := json.Unmarshal(row.Data, &k); err != nil {
		return AccountKey{}, fmt.Errorf("read key %s: %w", row.Key, err)
	}
	return k, nil
}

func putKey(ctx context.Context, tx store.Tx, k AccountKey) error {
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("write key %s: %w", k.ID, err)
	}
	return tx.Put(ctx, store.Row{Kind: kindAccountKeys, Key: k.ID, Parent: k.Email, Data: data})
}

// CreateAccountKey makes a key of a service account and gives its private half,
// which is kept nowhere. Whether the caller may is asked with OnAccount.
func (a *Authority) CreateAccountKey(ctx context.Context, email string) (AccountKey, *rsa.PrivateKey, error) {
	project, account, err := a.ServiceAccount(ctx, email)
	if err != nil {
		return AccountKey{}, nil, err
	}
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return AccountKey{}, nil, fmt.Errorf("make a key of %s: %w", account, err)
	}
	k, err := a.newAccountKey(project, account, private)
	if err != nil {
		return AccountKey{}, nil, err
	}
	// The row behind the access tokens that the key is exchanged for: they die
	// together.
	token := tokenRow{
		Token: Token{ID: newTokenID(), Kind: TokenKey, Email: account, Grants: map[string]Role{project: User}, Created: k.Created},
		Salt:  newTokenID(),
	}
	k.TokenID = token.ID
	err = a.store.Update(ctx, func(tx store.Tx) error {
		keys, err := keysOf(ctx, tx, account)
		if err != nil {
			return err
		}
		if users := slices.DeleteFunc(keys, func(k AccountKey) bool { return k.System }); len(users) >= maxAccountKeys {
			return resource.Errorf(codes.ResourceExhausted, "%s has %d keys, which is the most", account, len(users)).
				WithHint("delete one that is not used: `tategu key list %s`", account)
		}
		if err := putToken(ctx, tx, token); err != nil {
			return err
		}
		return putKey(ctx, tx, k)
	})
	if err != nil {
		return AccountKey{}, nil, fmt.Errorf("make a key of %s: %w", account, err)
	}
	return k, private, nil
}

// newAccountKey describes a key. Its id follows from the key itself, so that the
// same key is the same row.
func (a *Authority) newAccountKey(project, account string, private *rsa.PrivateKey) (AccountKey, error) {
	id, err := keyID(&private.PublicKey)
	if err != nil {
		return AccountKey{}, fmt.Errorf("key of %s: %w", account, err)
	}
	serial, _ := new(big.Int).SetString(id[:16], 16) // keyID gives hexadecimal digits
	created := a.now().UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: accountNumber(account)},
		NotBefore: created, NotAfter: neverExpires(), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return AccountKey{}, fmt.Errorf("key of %s: %w", account, err)
	}
	return AccountKey{ID: id, Email: account, Project: project, Created: created, Certificate: cert}, nil
}

func keyID(public *rsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])[:keyIDLength], nil
}

// accountNumber is the numeric id that clients expect an account to have; it
// follows from the address.
func accountNumber(email string) string {
	sum := sha256.Sum256([]byte(email))
	n := new(big.Int).SetBytes(sum[:])
	return n.Mod(n, big.NewInt(900_000_000_000_000_000)).Add(n, big.NewInt(100_000_000_000_000_000)).String()
}

func keysOf(ctx context.Context, r store.Reader, account string) ([]AccountKey, error) {
	rows, err := r.List(ctx, store.Query{Kind: kindAccountKeys, Parent: account})
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", account, err)
	}
	keys := make([]AccountKey, 0, len(rows))
	for _, row := range rows {
		k, err := decodeKey(row)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// AccountKeys lists the keys of a service account.
func (a *Authority) AccountKeys(ctx context.Context, email string) ([]AccountKey, error) {
	_, account, err := a.ServiceAccount(ctx, email)
	if err != nil {
		return nil, err
	}
	return keysOf(ctx, a.store, account)
}

// AccountKey gives one key of a service account.
func (a *Authority) AccountKey(ctx context.Context, email, id string) (AccountKey, error) {
	_, account, err := a.ServiceAccount(ctx, email)
	if err != nil {
		return AccountKey{}, err
	}
	k, err := a.accountKey(ctx, id)
	if resource.IsNotFound(err) || err == nil && k.Email != account {
		return AccountKey{}, resource.NotFound("serviceAccounts/" + account + "/keys/" + id[:min(len(id), 80)])
	}
	return k, err
}

// DeleteAccountKey ends a key, and all that was signed with it or made from it.
func (a *Authority) DeleteAccountKey(ctx context.Context, email, id string) error {
	k, err := a.AccountKey(ctx, email, id)
	if err != nil {
		return err
	}
	if k.System {
		return resource.Errorf(codes.FailedPrecondition, "key %s is the server's own: it cannot be deleted", id)
	}
	err = a.store.Update(ctx, func(tx store.Tx) error {
		if err := tx.Delete(ctx, kindTokens, k.TokenID); err != nil && !resource.IsNotFound(err) {
			return err
		}
		return tx.Delete(ctx, kindAccountKeys, k.ID)
	})
	a.tokens.clear() // as in revoke
	if err != nil {
		return fmt.Errorf("delete key %s: %w", id, err)
	}
	return nil
}

// KeyFile is the credential file of a key in the form that client libraries
// read; tokenURL is where they exchange it for access tokens.
func KeyFile(k AccountKey, private *rsa.PrivateKey, tokenURL string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	file := struct {
		Type         string `json:"type"`
		ProjectID    string `json:"project_id"`
		PrivateKeyID string `json:"private_key_id"`
		PrivateKey   string `json:"private_key"`
		ClientEmail  string `json:"client_email"`
		ClientID     string `json:"client_id"`
		TokenURI     string `json:"token_uri"`
	}{
		"service_account", k.Project, k.ID, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		k.Email, accountNumber(k.Email), tokenURL,
	}
	b, err := json.MarshalIndent(file, "", "  ") //nolint:gosec // G117: a key file is for its owner, who asked for it
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return append(b, '\n'), nil
}
