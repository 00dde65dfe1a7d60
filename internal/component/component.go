// Package component makes pipeline steps of programs as they are: it reads what a
// script takes on its command line, and writes the kfp component that runs it, as
// Python source or as compiled YAML. It runs nothing.
package component

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"tategu/internal/resource"
)

// Type of an argument.
type Type string

// Types. Words are several words in one parameter, with blanks between them; In
// and Out are artifacts, of which the program gets the path.
const (
	String Type = "str"
	Int    Type = "int"
	Float  Type = "float"
	Bool   Type = "bool"
	Words  Type = "words"
	In     Type = "in"
	Out    Type = "out"
)

// Argument is one of a program's command line.
type Argument struct {
	Name     string // a Python identifier
	Flag     string // "--epochs"; "" = it is positional
	Off      string // of Bool: the flag for false
	Type     Type
	Required bool
	Default  string // a Python literal; "" with an argument that is not required: the program's own
	Repeated bool   // of Words: the flag before each of them
	Help     string
}

// Component is a program with its arguments.
type Component struct {
	Name      string // a Python identifier
	Source    string // the file that it was made from, for people
	Image     string
	Command   []string
	Arguments []Argument
}

// optional arguments without a default are left out when they are not given.
func (a Argument) optional() bool { return !a.Required && a.Default == "" }

// ParseArgument reads NAME[:TYPE][=DEFAULT] of the command line.
func ParseArgument(s string) (Argument, error) {
	m := regexp.MustCompile(`^(-{0,2}[A-Za-z][\w.-]*)(?::(str|int|float|bool|words|in|out))?(?:=(.*))?$`).FindStringSubmatch(s)
	if m == nil {
		return Argument{}, resource.Invalid("arg", "--arg %.80q is not NAME[:TYPE][=DEFAULT]", s).
			WithHint("types are str, int, float, bool, words, in and out, as in --arg rows:int=100 or --arg model:out")
	}
	name := strings.TrimLeft(m[1], "-")
	a := Argument{Name: Identifier(strings.ReplaceAll(name, ".", "_")), Flag: "--" + name, Type: Type(or(m[2], "str"))}
	if strings.HasPrefix(m[1], "-") {
		a.Flag = m[1]
	}
	given := strings.Contains(s, "=")
	a.Required = !given
	var err error
	switch a.Type {
	case In, Out:
		if given {
			err = errors.New("an artifact has no default")
		}
	case Bool:
		a.Required, a.Default = false, "False"
		if given {
			var b bool
			if b, err = strconv.ParseBool(m[3]); b {
				a.Default = "True"
			}
		}
	case Int:
		if given {
			var n int64
			n, err = strconv.ParseInt(m[3], 10, 53)
			a.Default = strconv.FormatInt(n, 10)
		}
	case Float:
		if given {
			var f float64
			if f, err = strconv.ParseFloat(m[3], 64); err == nil && (math.IsInf(f, 0) || math.IsNaN(f)) {
				err = fmt.Errorf("%s is no number of JSON", m[3])
			}
			a.Default = pythonFloat(f)
		}
	case String, Words:
		if given {
			a.Default = quote(m[3])
		}
	}
	if err != nil {
		return a, resource.Invalid("arg", "--arg %.80q: the default is not of type %s: %v", s, a.Type, err)
	}
	return a, nil
}

// Override puts arguments in the place of those with the same name, or behind all.
func Override(list, with []Argument) []Argument {
	for _, w := range with {
		found := false
		for i, a := range list {
			if a.Name == w.Name {
				w.Help = a.Help
				if a.Flag == "" && a.Off == "" {
					w.Flag = "" // it stays where it was
				}
				list[i], found = w, true
			}
		}
		if !found {
			list = append(list, w)
		}
	}
	return list
}

// words of the command line: what is passed on, and the shell around it if it takes
// one, which switches flags on and cuts lists.
func (c Component) words() (command []string, args []any) {
	var sh shell
	for _, a := range c.Arguments {
		switch a.Type {
		case Bool, Words:
			sh.add(a)
		case String, Int, Float, In, Out:
			args = append(args, a)
		}
	}
	if len(sh.values) == 0 {
		return c.Command, args
	}
	for _, w := range c.Command {
		sh.values = append(sh.values, w)
	}
	return []string{"sh", "-c", sh.script(), c.Name}, append(sh.values, args...)
}

// shell writes a script that takes the values of some arguments in front of a command
// and adds to it what they mean.
type shell struct {
	values              []any
	positional, options strings.Builder
}

func (sh *shell) add(a Argument) {
	sh.values = append(sh.values, a)
	v := "$v" + strconv.Itoa(len(sh.values))
	switch {
	case a.Type == Bool:
		fmt.Fprintf(&sh.options, "case %s in true|True|1) %s;; *) %s;; esac\n", v, push(a.Flag), push(a.Off))
	case a.Repeated:
		fmt.Fprintf(&sh.options, "for w in %s; do set -- \"$@\" %s \"$w\"; done\n", v, shellWord(a.Flag))
	case a.Flag != "":
		fmt.Fprintf(&sh.options, "[ -z \"%s\" ] || set -- \"$@\" %s %s\n", v, shellWord(a.Flag), v)
	default:
		fmt.Fprintf(&sh.positional, "set -- \"$@\" %s\n", v)
	}
}

func (sh *shell) script() string {
	var b strings.Builder
	b.WriteString("set -f\n") // words are words, also with a star
	n := 0
	for _, v := range sh.values {
		if _, ok := v.(Argument); ok {
			n++
			fmt.Fprintf(&b, "v%d=${%d}\n", n, n)
		}
	}
	fmt.Fprintf(&b, "shift %d\n%s%sexec \"$@\"", n, sh.positional.String(), sh.options.String())
	return b.String()
}

func push(flag string) string {
	if flag == "" {
		return ":"
	}
	return `set -- "$@" ` + shellWord(flag)
}

func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// quote writes a string as a literal of Python, and of JSON.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""` // strings always marshal
	}
	return string(b)
}

func pythonFloat(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".en") {
		s += ".0"
	}
	return s
}
