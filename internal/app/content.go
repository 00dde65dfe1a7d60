package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/blob/bucket"
	"tategu/internal/blob/disk"
	"tategu/internal/resource"
)

// Storage says where the bytes of objects are.
type Storage struct {
	Objects string `yaml:"objects"` // URL of a bucket; "" = the data directory
}

// placement remembers in the data directory where its objects are, since its rows
// are of no use without them: DATA/objects.json, absent while they are in DATA/objects.
type placement struct {
	Installation string `json:"installation"` // what the bucket's marker must say
	Objects      string `json:"objects"`      // the bucket
	Claimed      bool   `json:"claimed"`      // the marker is there
}

func placementPath(data string) string { return filepath.Join(data, "objects.json") }

func readPlacement(data string) (placement, error) {
	var p placement
	b, err := os.ReadFile(placementPath(data))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err == nil && (p.Installation == "" || p.Objects == "") {
		err = errors.New("it names no installation or no bucket")
	}
	if err != nil {
		return p, fmt.Errorf("read where the objects are (%s): %w", placementPath(data), err)
	}
	return p, nil
}

func (p placement) write(data string) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = writeFile(placementPath(data), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write where the objects are: %w", err)
	}
	return nil
}

// openContent opens the bytes of objects where the configuration says they are, and
// refuses a configuration that would lose sight of those there are.
func (m *Main) openContent(ctx context.Context) (blob.Content, error) {
	known, err := readPlacement(m.cfg.Data)
	if err != nil {
		return nil, err
	}
	if m.cfg.Storage.Objects == "" {
		if known.Claimed {
			return nil, misplaced("the objects of the data directory %s are in %s", m.cfg.Data, known.Objects).
				WithHint("set storage.objects or --objects to that URL")
		}
		return disk.Open(filepath.Join(m.cfg.Data, "objects"), disk.OnVolume(m.volume))
	}
	address, _, err := bucket.Parse(m.cfg.Storage.Objects)
	if err != nil {
		return nil, err
	}
	if !known.Claimed {
		if err := onDisk(filepath.Join(m.cfg.Data, "objects")); err != nil {
			return nil, err
		}
	}
	content, err := bucket.Open(ctx, m.cfg.Storage.Objects, m.log, m.now)
	if err != nil {
		return nil, err
	}
	m.content = content
	return content, m.claim(ctx, content, known, address.String())
}

func misplaced(format string, args ...any) *resource.Error {
	return resource.Errorf(codes.FailedPrecondition, format, args...)
}

// onDisk refuses a bucket for a data directory that has objects already.
func onDisk(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			return misplaced("the objects of this data directory are in %s, and storage.objects names a bucket", dir).
				WithHint("unset storage.objects, or start with a new data directory and copy the objects with `tategu cp`")
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// claim makes sure that the bucket is this data directory's own.
func (m *Main) claim(ctx context.Context, content *bucket.Content, known placement, objects string) error {
	isNew := !known.Claimed
	if isNew { // written first, so that a kill in between does not make us strangers to our own marker
		if known.Installation == "" {
			known.Installation = resource.RandomID()
		}
		known.Objects = objects
		if err := known.write(m.cfg.Data); err != nil {
			return err
		}
	}
	if err := content.Claim(ctx, known.Installation, isNew); err != nil {
		return err
	}
	if !isNew && known.Objects == objects {
		return nil
	}
	known.Objects, known.Claimed = objects, true // another address of the same objects: the marker was copied with them
	return known.write(m.cfg.Data)
}
