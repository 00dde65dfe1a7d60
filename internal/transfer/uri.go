package transfer

import (
	"strconv"
	"strings"

	"tategu/internal/resource"
)

const scheme = "gs://"

// IsRemote tells a gs:// URL from a path.
func IsRemote(s string) bool { return strings.HasPrefix(s, scheme) }

// URL is gs://BUCKET[/NAME][#GENERATION].
type URL struct {
	Bucket, Name string
	Generation   int64 // 0 = the live one
}

func (u URL) String() string {
	s := scheme + u.Bucket
	if u.Name != "" || u.Bucket != "" {
		s += "/" + u.Name
	}
	if u.Generation != 0 {
		s += "#" + strconv.FormatInt(u.Generation, 10)
	}
	return s
}

// leastGeneration is the smallest number of 16 digits; generations are microseconds
// since 1970.
const leastGeneration = 1e15

// ParseURL reads a gs:// URL. A generation is what follows the last # of a name when
// that is a number of at least 16 digits, as generations are.
func ParseURL(s string) (URL, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return URL{}, resource.Invalid("url", "%q is not a gs:// URL", s).WithHint("write gs://BUCKET/NAME")
	}
	var u URL
	u.Bucket, u.Name, _ = strings.Cut(rest, "/")
	if u.Bucket == "" {
		return URL{}, resource.Invalid("url", "%q names no bucket", s).WithHint("`tategu ls` lists the buckets")
	}
	if strings.ContainsAny(u.Bucket, "*?[#") {
		return URL{}, resource.Invalid("url", "the bucket of %q has a wildcard or a #", s).WithHint("name one bucket; `tategu ls` lists them")
	}
	if i := strings.LastIndexByte(u.Name, '#'); i > 0 && i+1 < len(u.Name) && u.Name[i+1] >= '1' && u.Name[i+1] <= '9' {
		if n, err := strconv.ParseInt(u.Name[i+1:], 10, 64); err == nil && n >= leastGeneration {
			u.Name, u.Generation = u.Name[:i], n
		}
	}
	return u, nil
}

// isPattern reports a name with wildcards: *, ** or ?, or a class in brackets.
func isPattern(name string) bool { return strings.ContainsAny(name, "*?[") }

// serverGlob is a pattern as the server's matchGlob reads it, where braces and
// backslashes would be special too.
func serverGlob(pattern string) string {
	return strings.NewReplacer(`\`, `\\`, `{`, `\{`, `}`, `\}`).Replace(pattern)
}

// literal is the part of a pattern ahead of its first wildcard.
func literal(pattern string) string {
	if i := strings.IndexAny(pattern, "*?["); i >= 0 {
		return pattern[:i]
	}
	return pattern
}

// folderOf is the part of a name up to its last slash, with it.
func folderOf(name string) string { return name[:strings.LastIndexByte(name, '/')+1] }

// baseOf is the last segment of a name, without a slash at the end.
func baseOf(name string) string {
	name = strings.TrimSuffix(name, "/")
	return name[strings.LastIndexByte(name, '/')+1:]
}
