package torchserve

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Kind is what a token is for.
type Kind string

// The kinds, as GET /token?type= and the key file name them.
const (
	KindInference  Kind = "inference"
	KindManagement Kind = "management"
	kindAPI        Kind = "API" // makes new ones of the others
)

// Tokens are the three keys of a server. They are made at its start and kept in a file,
// key_file.json, that its owner alone may read.
type Tokens struct {
	path string
	life time.Duration
	now  func() time.Time

	mu   sync.Mutex
	keys map[Kind]tokenKey
}

// tokenKey is an entry of the file.
type tokenKey struct {
	Key     string     `json:"key"`
	Expires *time.Time `json:"expiration time,omitempty"`
}

// NewTokens makes keys and writes the file. life is how long those of inference and
// management are good.
func NewTokens(path string, life time.Duration, now func() time.Time) (*Tokens, error) {
	t := &Tokens{path: path, life: life, now: now, keys: map[Kind]tokenKey{kindAPI: {Key: newKey()}}}
	t.renew(KindManagement)
	t.renew(KindInference)
	return t, t.write()
}

// Path of the key file.
func (t *Tokens) Path() string { return t.path }

// newKey makes a key of 16 random bytes; TorchServe's have 6.
func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (t *Tokens) renew(k Kind) {
	end := t.now().Add(t.life).UTC()
	t.keys[k] = tokenKey{Key: newKey(), Expires: &end}
}

// Renew makes another key of a kind and writes the file; the old one is good no more.
func (t *Tokens) Renew(k Kind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.keys[k]
	t.renew(k)
	if err := t.write(); err != nil {
		t.keys[k] = old
		return err
	}
	return nil
}

// Allows says whether an Authorization header's value has the key of a kind.
func (t *Tokens) Allows(k Kind, header string) bool {
	token, ok := bearer(header)
	if !ok {
		return false
	}
	t.mu.Lock()
	key := t.keys[k]
	t.mu.Unlock()
	if subtle.ConstantTimeCompare([]byte(token), []byte(key.Key)) != 1 {
		return false
	}
	return key.Expires == nil || t.now().Before(*key.Expires)
}

// bearer is the token of "Bearer TOKEN".
func bearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

// write replaces the file as a whole.
func (t *Tokens) write() error {
	text, err := json.MarshalIndent(t.keys, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(t.path), ".key_file-*")
	if err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), t.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write the key file: %w", err)
	}
	return nil
}

// readTokens reads a key file: what a client does.
func readTokens(text []byte) (map[Kind]tokenKey, error) {
	var keys map[Kind]tokenKey
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, fmt.Errorf("a key file: %w", err)
	}
	for _, k := range []Kind{kindAPI, KindInference, KindManagement} {
		if keys[k].Key == "" {
			return nil, fmt.Errorf("a key file: %q has no key", k)
		}
	}
	return keys, nil
}

// guard refuses requests without the token that they need.
func (a *API) guard(management bool) handler {
	kind := KindInference
	if management {
		kind = KindManagement
	}
	return func(_ http.ResponseWriter, r *http.Request, _ []string) (bool, error) {
		if a.Tokens == nil || a.Tokens.Allows(kind, r.Header.Get("Authorization")) {
			return false, nil
		}
		return true, failure(http.StatusBadRequest, "InvalidKeyException", "Token Authorization failed. Token either incorrect, expired, or not provided correctly")
	}
}

// token answers GET /token: it makes another token of a type, which is then in the file.
func (a *API) token(w http.ResponseWriter, r *http.Request, s []string) (bool, error) {
	if a.Tokens == nil || at(s, 1) != "token" {
		return false, nil
	}
	kind := Kind(param(r.URL.Query(), "type", ""))
	if kind != KindInference && kind != KindManagement || !a.Tokens.Allows(kindAPI, r.Header.Get("Authorization")) {
		return true, failure(http.StatusBadRequest, "InvalidKeyException", "Token Authentication failed. Token either incorrect, expired, or not provided correctly")
	}
	if err := a.Tokens.Renew(kind); err != nil {
		return true, err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "1")
	_, _ = w.Write([]byte("\n"))
	return true, nil
}
