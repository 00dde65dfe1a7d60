package component

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// call is a call whose arguments were literals or names.
type call struct {
	plain []value
	named map[string]value
}

// value is an argument: a literal, a name such as int, or unknown.
type value struct {
	kind    kind
	text    string // of a string, a number or a name
	list    bool   // it is a list, a tuple or the like
	unknown bool
}

func (v value) is(name string) bool { return v.kind == word && !v.unknown && v.text == name }

// Arguments reads what a Python script takes on its command line, from its calls of
// argparse (add_argument) and click (option, argument). ok is false when it has none,
// or several sets of them (subcommands), of which only the script knows the right one.
func Arguments(source string) (list []Argument, ok bool) {
	ts := tokens(source)
	seen := map[string]bool{}
	click := slices.ContainsFunc(ts, func(t token) bool { return t.kind == word && t.text == "click" })
	for i := 0; i+2 < len(ts); i++ {
		if ts[i].kind != symbol || ts[i].text != "." || ts[i+1].kind != word || ts[i+2] != (token{symbol, "("}) {
			continue
		}
		ofClick := click && i > 0 && ts[i-1] == (token{word, "click"})
		var a Argument
		good := false
		switch name := ts[i+1].text; {
		case name == "add_subparsers" || ofClick && (name == "group" || name == "Group"):
			return nil, false
		case name == "add_argument":
			a, good = argparse(readCall(ts[i+2:]))
		case ofClick && (name == "option" || name == "argument"):
			a, good = ofClickCall(readCall(ts[i+2:]), name == "argument")
		}
		if good && !seen[a.Name] {
			seen[a.Name], list = true, append(list, a)
		}
	}
	return list, len(list) > 0
}

// maxCall bounds the tokens of one call, so that parentheses that never close cost
// no more than others.
const maxCall = 4096

// readCall reads the arguments of a call; ts begins with its parenthesis.
func readCall(ts []token) call {
	c := call{named: map[string]value{}}
	depth, start := 0, 1
	for i, t := range ts[:min(len(ts), maxCall)] {
		if t.kind != symbol {
			continue
		}
		switch t.text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		}
		if depth == 0 || depth == 1 && t.text == "," {
			c.add(ts[start:i])
			start = i + 1
		}
		if depth == 0 {
			break
		}
	}
	return c
}

func (c *call) add(ts []token) {
	if len(ts) == 0 {
		return
	}
	if len(ts) > 2 && ts[0].kind == word && ts[1] == (token{symbol, "="}) {
		c.named[ts[0].text] = read(ts[2:])
		return
	}
	c.plain = append(c.plain, read(ts))
}

// read understands one literal or name; neighbouring strings are one.
func read(ts []token) value {
	first := ts[0]
	if first.kind == symbol && strings.IndexAny(first.text, "[({") == 0 {
		return value{list: true}
	}
	if first == (token{symbol, "-"}) && len(ts) == 2 && ts[1].kind == number {
		return value{kind: number, text: "-" + ts[1].text}
	}
	if first.kind == text {
		var b strings.Builder
		for _, t := range ts {
			if t.kind != text {
				return value{unknown: true}
			}
			b.WriteString(t.text)
		}
		return value{kind: text, text: b.String()}
	}
	if len(ts) == 3 && first.kind == word && ts[1] == (token{symbol, "."}) { // pathlib.Path, click.INT
		return value{kind: word, text: ts[2].text}
	}
	if len(ts) != 1 || first.kind == symbol || first.kind == broken {
		return value{unknown: true}
	}
	return value{kind: first.kind, text: first.text}
}

// flagsOf splits the names of an argument from its options.
func flagsOf(c call) (flag, name string, ok bool) {
	for _, v := range c.plain {
		if v.kind != text || v.unknown || v.list {
			return "", "", false
		}
		word, _, _ := strings.Cut(v.text, "/") // click: --shout/--no-shout
		if !strings.HasPrefix(word, "-") {
			name = word
			continue
		}
		if flag == "" || strings.HasPrefix(word, "--") && !strings.HasPrefix(flag, "--") {
			flag = word
		}
	}
	if dest := c.named["dest"]; dest.kind == text {
		name = dest.text
	}
	if name == "" {
		name = strings.TrimLeft(flag, "-")
	}
	return flag, name, name != ""
}

// argparse translates a call of add_argument
// (docs.python.org/3/library/argparse.html).
func argparse(c call) (Argument, bool) {
	flag, name, ok := flagsOf(c)
	a := Argument{Name: Identifier(name), Flag: flag, Help: c.named["help"].help(), Required: flag == "" || c.named["required"].is("True")}
	if !ok || a.Name == "" {
		return a, false
	}
	a.Type = typeOf(c.named["type"])
	switch action := c.named["action"]; {
	case action.text == "store_true":
		a.Type, a.Default, a.Required = Bool, "False", false
		return a, flag != ""
	case action.text == "store_false":
		a.Type, a.Default, a.Required, a.Off, a.Flag = Bool, "True", false, flag, ""
		return a, flag != ""
	case action.is("BooleanOptionalAction"):
		a.Type, a.Off = Bool, "--no-"+strings.TrimLeft(flag, "-")
		a.Default = "False"
		if c.named["default"].is("True") {
			a.Default = "True"
		}
		return a, strings.HasPrefix(flag, "--")
	case action.text == "help", action.text == "version", action.text == "count", action.text == "store_const", action.text == "append_const":
		return a, false
	case action.text == "append" || action.text == "extend":
		a.Type, a.Default, a.Repeated = Words, `""`, action.text == "append"
		return a, flag != ""
	}
	switch n := c.named["nargs"]; {
	case n.text == "?" && flag == "":
		a.Required = false
	case n.text == "?", n.text == "" && !n.unknown:
	default:
		a.Type = Words
		if !a.Required || n.text == "*" || n.text == "..." {
			a.Required, a.Default = false, `""`
		}
		return a, true
	}
	a.setDefault(c.named["default"])
	return a, true
}

// ofClickCall translates click.option and click.argument
// (click.palletsprojects.com/api).
func ofClickCall(c call, positional bool) (Argument, bool) {
	flag, name, ok := flagsOf(c)
	a := Argument{Name: Identifier(name), Flag: flag, Help: c.named["help"].help(), Required: positional || c.named["required"].is("True")}
	if !ok || a.Name == "" || len(c.plain) == 0 {
		return a, false
	}
	a.Type = typeOf(c.named["type"])
	given := c.named["default"]
	on, off, both := strings.Cut(c.plain[0].text, "/")
	switch {
	case both || c.named["is_flag"].is("True"):
		a.Type, a.Required, a.Default = Bool, false, "False"
		if both {
			a.Flag, a.Off = on, off
		}
		if given.is("True") {
			a.Default = "True"
		}
		return a, true
	case c.named["multiple"].is("True"):
		a.Type, a.Default, a.Repeated, a.Required = Words, `""`, true, false
		return a, true
	case c.named["nargs"].text != "" || c.named["nargs"].unknown:
		a.Type = Words
		return a, true
	case c.named["type"] == value{} && given.kind == number: // click takes the type of the default
		a.Type = Int
		if strings.ContainsAny(given.text, ".eE") {
			a.Type = Float
		}
	}
	if positional && (c.named["required"].is("False") || given != value{}) {
		a.Required = false
	}
	a.setDefault(given)
	return a, true
}

func typeOf(v value) Type {
	switch v.text {
	case "int", "INT":
		return Int
	case "float", "FLOAT":
		return Float
	}
	return String
}

func (v value) help() string {
	if v.kind != text {
		return ""
	}
	return strings.Join(strings.Fields(v.text), " ")
}

// setDefault keeps a default that is a literal of the argument's type; another one
// is left to the script, by not naming the argument.
func (a *Argument) setDefault(v value) {
	if a.Required || v.unknown || v.list {
		return
	}
	plain := strings.ReplaceAll(v.text, "_", "")
	switch {
	case v.kind == text && v != value{} && a.Type == String:
		a.Default = quote(v.text)
	case v.kind == number && a.Type == Int:
		if n, err := strconv.ParseInt(plain, 10, 53); err == nil {
			a.Default = strconv.FormatInt(n, 10)
		}
	case v.kind == number && a.Type == Float:
		if f, err := strconv.ParseFloat(plain, 64); err == nil {
			a.Default = pythonFloat(f)
		}
	}
}

// Identifier makes a Python name of a word: "" when there is nothing to make one of.
func Identifier(s string) string {
	s = strings.ToLower(strings.TrimSuffix(path.Base(s), path.Ext(s)))
	s = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, s), "_")
	for strings.Contains(s, "__") {
		s = strings.ReplaceAll(s, "__", "_")
	}
	if s == "" {
		return ""
	}
	if s[0] <= '9' {
		s = "n" + s
	}
	if slices.Contains(keywords(), s) {
		s += "_of"
	}
	return s
}

// keywords of Python, and names that the generated source uses itself.
func keywords() []string {
	return strings.Fields("and as assert async await break class continue def del elif else except finally for from global if import in is " +
		"lambda nonlocal not or pass raise return try while with none true false dsl optional int float str bool")
}
