package component

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Python writes the component as source for kfp 2.
func (c Component) Python() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The component %s, of %s; made by `tategu task from`.\n", c.Name, oneLine(c.Source))
	if slices.ContainsFunc(c.Arguments, Argument.optional) {
		b.WriteString("from typing import Optional\n\n")
	}
	b.WriteString("from kfp import dsl\n\n\n@dsl.container_component\n")
	if len(c.Arguments) == 0 {
		fmt.Fprintf(&b, "def %s():\n", c.Name)
	} else {
		fmt.Fprintf(&b, "def %s(\n", c.Name)
		for _, a := range c.ordered() {
			fmt.Fprintf(&b, "    %s,%s\n", a.parameter(), a.comment())
		}
		b.WriteString("):\n")
	}
	command, args := c.words()
	b.WriteString("    return dsl.ContainerSpec(\n")
	fmt.Fprintf(&b, "        image=%s,\n        command=[\n", quote(c.Image))
	for _, w := range command {
		fmt.Fprintf(&b, "            %s,\n", literal(w))
	}
	b.WriteString("        ],\n")
	if len(args) > 0 {
		b.WriteString("        args=[\n")
		for _, a := range args {
			fmt.Fprintf(&b, "            %s,\n", pythonArgument(a))
		}
		b.WriteString("        ],\n")
	}
	b.WriteString("    )\n")
	return b.String()
}

// ordered puts arguments without a default first, as Python wants them.
func (c Component) ordered() []Argument {
	list := slices.Clone(c.Arguments)
	slices.SortStableFunc(list, func(a, b Argument) int { return rank(a) - rank(b) })
	return list
}

func rank(a Argument) int {
	if a.Required || a.Type == In || a.Type == Out {
		return 0
	}
	return 1
}

func (a Argument) parameter() string {
	typ := string(a.Type)
	switch a.Type {
	case In:
		return a.Name + ": dsl.Input[dsl.Artifact]"
	case Out:
		return a.Name + ": dsl.Output[dsl.Artifact]"
	case Words:
		typ = "str"
	case String, Int, Float, Bool:
	}
	switch {
	case a.Required:
		return a.Name + ": " + typ
	case a.optional():
		return a.Name + ": Optional[" + typ + "] = None"
	}
	return a.Name + ": " + typ + " = " + a.Default
}

func (a Argument) comment() string {
	help := oneLine(a.Help)
	if a.Type == Words {
		help = strings.TrimSpace("words with blanks between them; " + help)
	}
	if help == "" {
		return ""
	}
	return "  # " + strings.TrimSuffix(help, ";")
}

// oneLine is for comments: what cannot be printed would end them, or the file.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, strings.Join(strings.Fields(s), " "))
}

// literal writes a word, one of several lines as lines.
func literal(s string) string {
	lines := strings.SplitAfter(s, "\n")
	for i, line := range lines {
		lines[i] = quote(line)
	}
	return strings.Join(lines, "\n            ")
}

func pythonArgument(of any) string {
	a, ok := of.(Argument)
	if !ok {
		return strconv.Quote(fmt.Sprint(of))
	}
	value := a.Name
	switch {
	case a.Type == In || a.Type == Out:
		value += ".path"
	case a.optional() && a.Flag != "":
		return fmt.Sprintf("dsl.IfPresentPlaceholder(input_name=%s, then=[%s, %s])", quote(a.Name), quote(a.Flag), value)
	case a.optional():
		return fmt.Sprintf("dsl.IfPresentPlaceholder(input_name=%s, then=[%s])", quote(a.Name), value)
	}
	if a.Flag != "" && a.Type != Bool && a.Type != Words {
		return quote(a.Flag) + ", " + value
	}
	return value
}
