package component

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind of a token of Python, as far as calls with literals need it.
type kind int

const (
	word   kind = iota // a name or a keyword
	number             // as written
	text               // a string, with its value in text
	symbol             // one character
	broken             // a string that is more than a literal (f-strings, bytes)
)

type token struct {
	kind kind
	text string
}

// tokens cuts Python source. It knows strings and comments, so that what is in them
// is never taken for code; layout is not kept.
func tokens(source string) []token {
	var out []token
	for i := 0; i < len(source); {
		c := source[i]
		switch {
		case c == '#':
			i += lineEnd(source[i:])
		case c == '\\' || c <= ' ':
			i++
		case c == '"' || c == '\'':
			t, n := readString(source[i:], "")
			out, i = append(out, t), i+n
		case c >= '0' && c <= '9':
			n := span(source[i:], func(r rune) bool { return r == '.' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) })
			out, i = append(out, token{number, source[i : i+n]}), i+n
		case isName(firstRune(source[i:])):
			n := span(source[i:], isName)
			name := source[i : i+n]
			if rest := source[i+n:]; rest != "" && (rest[0] == '"' || rest[0] == '\'') && isPrefix(name) {
				t, m := readString(rest, strings.ToLower(name))
				out, i = append(out, t), i+n+m
				break
			}
			out, i = append(out, token{word, name}), i+n
		default:
			_, n := utf8.DecodeRuneInString(source[i:])
			out, i = append(out, token{symbol, source[i : i+n]}), i+n
		}
	}
	return out
}

func firstRune(s string) rune { r, _ := utf8.DecodeRuneInString(s); return r }

func isName(r rune) bool {
	return r == '_' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

func isPrefix(name string) bool {
	return len(name) <= 2 && strings.Trim(strings.ToLower(name), "rbfut") == ""
}

func lineEnd(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}

func span(s string, of func(rune) bool) int {
	for i, r := range s {
		if !of(r) {
			return i
		}
	}
	return len(s)
}

// readString reads a string literal at the start of s; n is its length.
func readString(s, prefix string) (t token, n int) {
	quote, kindOf := s[:1], text
	if strings.ContainsAny(prefix, "fbt") {
		kindOf = broken
	}
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s, triple) {
		quote = triple
	}
	raw := strings.Contains(prefix, "r")
	var b strings.Builder
	for i := len(quote); i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], quote):
			return token{kindOf, b.String()}, i + len(quote)
		case s[i] == '\n' && len(quote) == 1:
			return token{broken, ""}, i // it does not end
		case s[i] == '\\' && i+1 < len(s) && raw:
			b.WriteString(s[i : i+2])
			i += 2
		case s[i] == '\\' && i+1 < len(s):
			plain, ok := map[byte]string{'n': "\n", 't': "\t", '\\': "\\", '\'': "'", '"': `"`, '\n': "", 'r': "\r"}[s[i+1]]
			if !ok {
				kindOf = broken // codes of characters are not read
			}
			b.WriteString(plain)
			i += 2
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return token{broken, ""}, len(s)
}
