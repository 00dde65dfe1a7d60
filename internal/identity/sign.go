package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// VerifySignature gives the service account that signed a message with one of
// its keys, by RSA PKCS #1 v1.5 over SHA-256. What is wrong with a signature
// (account, key, bytes) is not told apart.
func (a *Authority) VerifySignature(ctx context.Context, email string, message, signature []byte) (Principal, error) {
	refused := resource.Errorf(codes.PermissionDenied, "the signature is by no key that this server issued to the account that it names, or for another request")
	_, account, err := a.ServiceAccount(ctx, email)
	if resource.IsNotFound(err) || resource.CodeOf(err) == codes.InvalidArgument {
		return Principal{}, refused
	}
	if err != nil {
		return Principal{}, err
	}
	keys, err := keysOf(ctx, a.store, account)
	if err != nil {
		return Principal{}, err
	}
	sum := sha256.Sum256(message)
	for _, k := range keys {
		public, err := k.Public()
		if err != nil {
			return Principal{}, err
		}
		if rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature) == nil {
			p := k.principal()
			p.Signed = true
			return p, nil
		}
	}
	return Principal{}, refused
}

// SignBlob signs for a service account with the server's own key of it, which is
// made on first use. Whether the caller may is asked with OnAccount.
func (a *Authority) SignBlob(ctx context.Context, email string, blob []byte) (keyID string, signature []byte, err error) {
	private, k, err := a.systemKey(ctx, email)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(blob)
	signature, err = rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
	if err != nil {
		return "", nil, fmt.Errorf("sign for %s: %w", k.Email, err)
	}
	return k.ID, signature, nil
}

// systemKey reads or makes the server's own key of an account. The private half
// is a file beside the installation's key; the public half is a row, without
// which nothing that it signs is believed.
func (a *Authority) systemKey(ctx context.Context, email string) (*rsa.PrivateKey, AccountKey, error) {
	project, account, err := a.ServiceAccount(ctx, email)
	if err != nil {
		return nil, AccountKey{}, err
	}
	private, err := a.systemPrivate(account)
	if err != nil {
		return nil, AccountKey{}, err
	}
	id, err := keyID(&private.PublicKey)
	if err != nil {
		return nil, AccountKey{}, fmt.Errorf("key of %s: %w", account, err)
	}
	k, err := a.accountKey(ctx, id)
	if err == nil || !resource.IsNotFound(err) {
		return private, k, err
	}
	if k, err = a.newAccountKey(project, account, private); err != nil {
		return nil, AccountKey{}, err
	}
	k.System = true
	if err := a.store.Update(ctx, func(tx store.Tx) error { return putKey(ctx, tx, k) }); err != nil {
		return nil, AccountKey{}, fmt.Errorf("key of %s: %w", account, err)
	}
	return private, k, nil
}

func (a *Authority) systemPrivate(account string) (*rsa.PrivateKey, error) {
	dir := filepath.Join(a.dir, "accounts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("key of %s: %w", account, err)
	}
	name := sha256.Sum256([]byte(account)) // an address is no file name everywhere
	path := filepath.Join(dir, hex.EncodeToString(name[:])[:keyIDLength]+".pem")
	text, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = newPrivatePEM(); err == nil {
			if err = writeOnce(path, text); errors.Is(err, fs.ErrExist) {
				text, err = readSecret(path) // another request was first
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", account, err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, resource.Errorf(codes.DataLoss, "the key file %s of %s holds no PEM", path, account).
			WithHint("restore it from a backup, or remove it: a new key is made then, and signatures by the old one stay good")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", account, err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key of %s is a %T", account, key)
	}
	return private, nil
}

func newPrivatePEM() ([]byte, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// readSecret reads a file that only its owner may be able to read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, resource.Errorf(codes.FailedPrecondition, "key file %s can be read by others (mode %o)", path, info.Mode().Perm()).
			WithHint("run: chmod 600 %s", path)
	}
	return os.ReadFile(path)
}
