package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

const keySize = 32

// loadKey reads or makes the installation's secret key. Short-lived tokens and
// the metadata servers' paths derive from it, so that none of them is stored and
// none is good on another installation.
func loadKey(dir string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	path := filepath.Join(dir, "identity.key")
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, resource.Errorf(codes.FailedPrecondition, "identity key %s can be read by others (mode %o)", path, info.Mode().Perm()).
			WithHint("run: chmod 600 %s", path)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	if len(key) != keySize {
		return nil, resource.Errorf(codes.DataLoss, "identity key %s has %d bytes, want %d", path, len(key), keySize).
			WithHint("restore it from a backup, or remove it: logins and running tasks then lose their credentials")
	}
	return key, nil
}

// createKey writes the key whole or not at all: a torn key would lock out every
// login after a power cut. A second process that wins the race is obeyed.
func createKey(path string) ([]byte, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // crypto/rand.Read never fails since Go 1.24
	if err := writeOnce(path, key); errors.Is(err, fs.ErrExist) {
		return loadKey(filepath.Dir(path))
	} else if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	return key, nil
}

// writeOnce makes a file that only its owner can read, durably; fs.ErrExist when
// there is one already.
func writeOnce(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // linked to its name by then
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// derive gives a value bound to a purpose and its parts. No part contains a NUL.
func (a *Authority) derive(purpose string, parts ...string) string {
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(purpose))
	for _, p := range parts {
		mac.Write([]byte{0})
		mac.Write([]byte(p))
	}
	return hex.EncodeToString(mac.Sum(nil))
}
