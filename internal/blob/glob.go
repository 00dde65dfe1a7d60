package blob

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"tategu/internal/resource"
)

// maxGlob bounds a pattern in bytes.
const maxGlob = 1024

// Glob selects object names by a pattern
// (cloud.google.com/storage/docs/json_api/v1/objects/list#list-objects-and-prefixes-using-glob):
// * is any number of characters but /, ** any number of any characters, ? one
// character but /, [a-z] and [!a-z] one of a class, {a,b} one of several patterns,
// and a backslash takes the next character as it is.
type Glob struct {
	match  *regexp.Regexp
	prefix string
}

// ParseGlob reads a pattern.
func ParseGlob(pattern string) (*Glob, error) {
	if len(pattern) > maxGlob {
		return nil, resource.Invalid("matchGlob", "matchGlob: the pattern has %d bytes, the most is %d", len(pattern), maxGlob)
	}
	if !utf8.ValidString(pattern) {
		return nil, resource.Invalid("matchGlob", "matchGlob: the pattern is not valid UTF-8")
	}
	p := globParser{rest: pattern}
	if err := p.parse(); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(`\A(?s:` + p.out.String() + `)\z`)
	if err != nil {
		return nil, resource.Invalid("matchGlob", "matchGlob: the pattern %q cannot be used: %w", pattern, err)
	}
	return &Glob{match: re, prefix: pattern[:literalLength(pattern)]}, nil
}

// Match reports a name that the pattern selects.
func (g *Glob) Match(name string) bool { return g.match.MatchString(name) }

// literalLength is how much of a pattern stands for itself.
func literalLength(pattern string) int {
	if i := strings.IndexAny(pattern, `*?[{}\`); i >= 0 {
		return i
	}
	return len(pattern)
}

// globParser translates a pattern into a regular expression, which is matched in
// time linear in the name.
type globParser struct {
	rest  string
	out   strings.Builder
	depth int // open braces
}

func (p *globParser) next() rune {
	r, n := utf8.DecodeRuneInString(p.rest)
	p.rest = p.rest[n:]
	return r
}

func (p *globParser) parse() error {
	for p.rest != "" {
		switch c := p.next(); c {
		case '*':
			if !strings.HasPrefix(p.rest, "*") {
				p.out.WriteString(`[^/]*`)
				continue
			}
			p.rest = strings.TrimLeft(p.rest, "*")
			p.out.WriteString(`.*`)
		case '?':
			p.out.WriteString(`[^/]`)
		case '[':
			if err := p.class(); err != nil {
				return err
			}
		case '{':
			p.depth++
			p.out.WriteString(`(?:`)
		case '}':
			if p.depth == 0 {
				return resource.Invalid("matchGlob", "matchGlob: the pattern closes a brace that is not open")
			}
			p.depth--
			p.out.WriteString(`)`)
		case ',':
			if p.depth > 0 {
				p.out.WriteString(`|`)
				continue
			}
			p.out.WriteString(`,`)
		case '\\':
			if p.rest == "" {
				return resource.Invalid("matchGlob", "matchGlob: the pattern ends with a backslash")
			}
			p.out.WriteString(regexp.QuoteMeta(string(p.next())))
		default:
			p.out.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	if p.depth > 0 {
		return resource.Invalid("matchGlob", "matchGlob: the pattern has a brace that is not closed")
	}
	return nil
}

// class reads what follows [ up to the closing ]; a ] that comes first is a member.
func (p *globParser) class() error {
	p.out.WriteString(`[`)
	if strings.HasPrefix(p.rest, "!") || strings.HasPrefix(p.rest, "^") {
		p.next()
		p.out.WriteString(`^`)
	}
	for first := true; p.rest != ""; first = false {
		switch c := p.next(); {
		case c == ']' && !first:
			p.out.WriteString(`]`)
			return nil
		case c == '-' && !first && !strings.HasPrefix(p.rest, "]"):
			p.out.WriteString(`-`)
		case c == '\\' && p.rest != "":
			p.out.WriteString(classMember(p.next()))
		default:
			p.out.WriteString(classMember(c))
		}
	}
	return resource.Invalid("matchGlob", "matchGlob: the pattern has a [ that is not closed")
}

func classMember(c rune) string {
	if strings.ContainsRune(`\]^-[&~|`, c) {
		return `\` + string(c)
	}
	return string(c)
}
