package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Tokens are text of one of two shapes:
//
//	tgu_ID_SECRET        stored (access and refresh tokens): the row ID keeps SHA-256 of SECRET
//	tgu_ID_EXPIRY_MAC    short-lived, not stored: made from the row ID of a refresh token or a task
//
// The prefix lets secret scanners find leaked ones.
const (
	tokenPrefix = "tgu"
	idLength    = 16
	macLength   = 64
	secretMin   = 26 // 130 bits of base 32
	tokenMax    = 256
)

// parsed is a token cut in its parts; nothing of it is proved yet.
type parsed struct {
	id     string
	secret string // stored tokens
	expiry time.Time
	mac    string // short-lived tokens
}

func (p parsed) shortLived() bool { return p.mac != "" }

func parseToken(s string) (parsed, bool) {
	if len(s) > tokenMax {
		return parsed{}, false
	}
	parts := strings.Split(s, "_")
	if len(parts) < 3 || parts[0] != tokenPrefix || !isWord(parts[1]) || len(parts[1]) != idLength {
		return parsed{}, false
	}
	p := parsed{id: parts[1]}
	switch len(parts) {
	case 3:
		p.secret = parts[2]
		return p, len(p.secret) >= secretMin && isWord(p.secret)
	case 4:
		seconds, err := strconv.ParseInt(parts[2], 36, 64)
		if err != nil || seconds <= 0 || strconv.FormatInt(seconds, 36) != parts[2] {
			return parsed{}, false
		}
		p.expiry, p.mac = time.Unix(seconds, 0).UTC(), parts[3]
		return p, len(p.mac) == macLength && isWord(p.mac)
	default:
		return parsed{}, false
	}
}

// isWord reports text of digits and lower-case letters, the only ones we use.
func isWord(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != ""
}

func newTokenID() string { return strings.ToLower(rand.Text()[:idLength]) }

func newSecret(id string) (token, hash string) {
	secret := strings.ToLower(rand.Text())
	return strings.Join([]string{tokenPrefix, id, secret}, "_"), hashSecret(secret)
}

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// shortLived makes a token of row r that dies at expiry or with the row. The
// row's salt keeps tokens of an ended task dead when its id is used again.
func (a *Authority) shortLived(r tokenRow, expiry time.Time) string {
	exp := strconv.FormatInt(expiry.Unix(), 36)
	return strings.Join([]string{tokenPrefix, r.ID, exp, a.shortMAC(r, exp)}, "_")
}

func (a *Authority) shortMAC(r tokenRow, exp string) string {
	return a.derive("access token", r.ID, r.Salt, exp)
}
