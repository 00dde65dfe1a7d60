package modelcache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// known is what a name stood for when it was last asked for.
type known struct {
	Name    string  `json:"name"`
	Version Version `json:"version"`
	Digest  string  `json:"digest"` // hex
}

func (c *Cache) nameFile(origin, name string) string {
	sum := sha256.Sum256([]byte(origin + "\x00" + name))
	return c.path(namesDir, hex.EncodeToString(sum[:16])+".json")
}

// remember keeps what a name stands for.
func (c *Cache) remember(origin, name string, l *Local) error {
	text, err := json.MarshalIndent(known{Name: name, Version: l.Version, Digest: strings.TrimPrefix(l.Digest, "sha256:")}, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.path(partsDir), "name-")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), c.nameFile(origin, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// recall gives what a name last stood for; fs.ErrNotExist = it is not known.
func (c *Cache) recall(origin, name string) (known, error) {
	var k known
	file := c.nameFile(origin, name)
	text, err := os.ReadFile(file)
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(text, &k); err != nil {
		return k, fmt.Errorf("read %s: %w", file, err)
	}
	if !isDigest(k.Digest) {
		return k, fmt.Errorf("read %s: %q is no digest", file, k.Digest)
	}
	return k, nil
}
