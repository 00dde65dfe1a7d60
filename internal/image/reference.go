package image

import (
	"cmp"
	"strings"
)

const (
	maxName = 255
	maxTag  = 128
	// DefaultTag is meant where a reference has neither tag nor digest.
	DefaultTag = "latest"
	dockerHub  = "docker.io"
)

// Reference is a name of an image: [HOST/]PATH[:TAG][@DIGEST].
type Reference struct {
	Host   string // of the registry; "" = none was written
	Path   string
	Tag    string // "" = none was written
	Digest Digest // "" = none was written; wins over the tag
}

// ParseReference reads a reference as Docker's tools do: a first component with a
// dot or a colon, and "localhost", is the registry's host.
func ParseReference(s string) (Reference, error) {
	var r Reference
	rest := s
	if name, digest, ok := strings.Cut(s, "@"); ok {
		d, err := ParseDigest(digest)
		if err != nil {
			return r, err
		}
		rest, r.Digest = name, d
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		if r.Tag = rest[i+1:]; !validTag(r.Tag) {
			return r, Refuse(ErrNameInvalid, "%.150q is not a tag", r.Tag).WithHint("a tag has 1 to 128 letters, digits, '_', '.' and '-', and begins with none of the last two")
		}
		rest = rest[:i]
	}
	r.Path = rest
	if first, path, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		r.Host, r.Path = first, path
		if !validHost(first) {
			return r, Refuse(ErrNameInvalid, "%.150q is not the host of a registry", first)
		}
	}
	return r, CheckName(r.Path)
}

// Repository gives the name that the store keeps the image under: with the host, if
// any, whose port follows "_", and Docker Hub's names in full.
func (r Reference) Repository() string {
	switch r.Host {
	case "":
		return r.Path
	case dockerHub, "index.docker.io", "registry-1.docker.io":
		return r.hub()
	}
	return strings.ReplaceAll(strings.ToLower(r.Host), ":", "_") + "/" + r.Path
}

// Candidates gives the names that an image without a host may be kept under: what
// was pushed here, then Docker Hub's.
func (r Reference) Candidates() []string {
	if r.Host == "" {
		return []string{r.Path, r.hub()}
	}
	return []string{r.Repository()}
}

// hub is the name in full of an image of Docker Hub.
func (r Reference) hub() string {
	if !strings.Contains(r.Path, "/") {
		return dockerHub + "/library/" + r.Path
	}
	return dockerHub + "/" + r.Path
}

// Version is the digest, else the tag, else latest.
func (r Reference) Version() string { return cmp.Or(string(r.Digest), r.Tag, DefaultTag) }

func (r Reference) String() string {
	s := r.Path
	if r.Host != "" {
		s = r.Host + "/" + s
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// CheckName refuses what is not a repository's name:
// [a-z0-9]+((.|_|__|-+)[a-z0-9]+)* between slashes, at most 255 bytes
// (distribution-spec, "Pulling manifests").
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return Refuse(ErrNameInvalid, "a repository's name has 1 to %d bytes, this one %d", maxName, len(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if !validPart(part) {
			return Refuse(ErrNameInvalid, "%.150q is not a repository's name: see %.80q", name, part).
				WithHint("use lower-case letters and digits, with '.', '_', '__' or '-' between them, and '/' between parts")
		}
	}
	return nil
}

func validPart(s string) bool {
	separators := 0 // since the last letter or digit; -1 = of a kind that stands alone
	for i, c := range []byte(s) {
		switch {
		case isAlnum(c):
			separators = 0
			continue
		case i == 0 || separators < 0:
			return false
		case c == '.':
			if separators > 0 {
				return false
			}
			separators = -1
		case c == '_':
			if separators > 1 || separators == 1 && s[i-1] != '_' {
				return false
			}
			separators++
		case c == '-':
			if separators > 0 && s[i-1] != '-' {
				return false
			}
			separators++
		default:
			return false
		}
	}
	return s != "" && separators == 0
}

func isAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func validTag(s string) bool {
	for i, c := range []byte(s) {
		word := isAlnum(c) || c >= 'A' && c <= 'Z' || c == '_'
		if !word && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxTag
}

func validHost(s string) bool {
	name, port, found := strings.Cut(s, ":")
	if found && (port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return false
	}
	for _, c := range []byte(name) {
		if !isAlnum(c) && (c < 'A' || c > 'Z') && c != '.' && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= maxName
}

// ParseVersion reads what follows a repository in the API: a tag or a digest.
func ParseVersion(s string) (tag string, d Digest, err error) {
	if strings.Contains(s, ":") {
		d, err = ParseDigest(s)
		return "", d, err
	}
	if !validTag(s) {
		return "", "", Refuse(ErrManifestInvalid, "%.150q is neither a tag nor a digest", s)
	}
	return s, "", nil
}
