package oci

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime/process/box"

	"google.golang.org/grpc/codes"
)

// maxAccounts bounds what is read of an image's passwd and group.
const maxAccounts = 1 << 20

// LookUser finds USER[:GROUP] of an image, names or numbers, in the image's own
// files. "" is root.
func LookUser(rootfs, spec string) (box.User, error) {
	name, group, grouped := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return box.User{}, err
	}
	defer func() { _ = root.Close() }() // opened for reading
	u := box.User{Home: "/"}
	number, err := strconv.Atoi(name)
	numeric := err == nil && number >= 0
	found := false
	login := name
	err = accounts(root, "etc/passwd", 7, func(f []string) {
		uid, gid, ok := ids(f[2], f[3])
		if found || !ok || f[0] != name && (!numeric || uid != number) {
			return
		}
		found, login, u.UID, u.GID = true, f[0], uid, gid
		if strings.HasPrefix(f[5], "/") {
			u.Home = f[5]
		}
	})
	switch {
	case err != nil:
		return box.User{}, err
	case !found && !numeric:
		return box.User{}, unknown("user", name)
	case !found:
		u.UID = number
		if number == 0 {
			u.Home = "/root"
		}
	}
	return u, groups(&u, root, login, group, grouped)
}

// groups fills in the group that was named, or the user's further ones.
func groups(u *box.User, root *os.Root, login, group string, grouped bool) error {
	if gid, err := strconv.Atoi(group); grouped && err == nil && gid >= 0 {
		u.GID = gid
		return nil
	}
	found := false
	err := accounts(root, "etc/group", 4, func(f []string) {
		gid, _, ok := ids(f[2], "0")
		switch {
		case !ok:
		case grouped:
			if f[0] == group && !found {
				u.GID, found = gid, true
			}
		default:
			for member := range strings.SplitSeq(f[3], ",") {
				if member == login && gid != u.GID {
					u.Groups = append(u.Groups, gid)
				}
			}
		}
	})
	if err == nil && grouped && !found {
		return unknown("group", group)
	}
	return err
}

func ids(a, b string) (x, y int, ok bool) {
	x, err := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return x, y, err == nil && err2 == nil && x >= 0 && y >= 0
}

// accounts reads the lines of passwd(5) or group(5); an image may have none.
func accounts(root *os.Root, name string, fields int, take func([]string)) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return badImage("read /%s: %v", name, err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return badImage("/%s is not a file", name)
	}
	lines := bufio.NewScanner(io.LimitReader(f, maxAccounts))
	for lines.Scan() {
		if got := strings.Split(lines.Text(), ":"); len(got) >= fields {
			take(got)
		}
	}
	return lines.Err()
}

func unknown(kind, name string) error {
	return resource.Errorf(codes.InvalidArgument, "the image runs as the %s %q, which it does not have", kind, name).
		WithCause(resource.CauseInput).WithHint("set a number, or add the name to the image's /etc/passwd or /etc/group")
}
