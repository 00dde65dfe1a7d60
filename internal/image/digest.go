package image

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"
)

// Digest names bytes by their hash: sha256:HEX or sha512:HEX, in lower case.
type Digest string

// ParseDigest reads a digest (image-spec, descriptor.md).
func ParseDigest(s string) (Digest, error) {
	algorithm, digits, ok := strings.Cut(s, ":")
	want := map[string]int{"sha256": 64, "sha512": 128}[algorithm]
	if !ok || want == 0 {
		return "", Refuse(ErrDigestInvalid, "%.80q is not a digest that is supported", s).WithHint("write sha256: and 64 hex digits, or sha512: and 128")
	}
	if len(digits) != want || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", Refuse(ErrDigestInvalid, "digest %.150q does not have %d hex digits in lower case", s, want)
	}
	return Digest(s), nil
}

// DigestOf gives the SHA-256 of bytes.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func (d Digest) algorithm() string {
	a, _, _ := strings.Cut(string(d), ":")
	return a
}

// hash gives the hash function of a digest that ParseDigest made.
func (d Digest) hash() hash.Hash {
	if d.algorithm() == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// check compares what was hashed with the digest.
func (d Digest) check(h hash.Hash) error {
	if got := d.algorithm() + ":" + hex.EncodeToString(h.Sum(nil)); got != string(d) {
		return Refuse(ErrDigestInvalid, "the bytes have the digest %s and not %s", got, d)
	}
	return nil
}

// checkBytes is check of bytes at hand.
func (d Digest) checkBytes(b []byte) error {
	h := d.hash()
	_, _ = h.Write(b) // never fails
	return d.check(h)
}
