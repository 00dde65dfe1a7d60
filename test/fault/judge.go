package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// fault is a row of the table.
type fault struct {
	name   string
	inject func(ctx context.Context, w *world) ([]shown, error)
	cause  string
	reason string   // "" = not looked at
	say    []string // words of what a person reads
	next   []string // words of the next step
}

// shown is an error at one place where a person meets it.
type shown struct {
	where string
	problem
}

// problem is a google.rpc.Status, or an error of the REST API, which is made alike.
type problem struct {
	Message string
	Details []detail
}

type detail struct {
	Type     string `json:"@type"`
	Reason   string
	Metadata map[string]string
	Links    []struct{ Description string }
}

func (p problem) info() detail {
	for _, d := range p.Details {
		if strings.HasSuffix(d.Type, "google.rpc.ErrorInfo") {
			return d
		}
	}
	return detail{}
}

func (p problem) hint() string {
	for _, d := range p.Details {
		if strings.HasSuffix(d.Type, "google.rpc.Help") && len(d.Links) > 0 {
			return d.Links[0].Description
		}
	}
	return ""
}

func (p problem) empty() bool { return p.Message == "" && len(p.Details) == 0 }

// spoken reads the error that the command line printed: its cause stands in
// brackets, the next step behind the last semicolon of the first line.
func spoken(text string) problem {
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(text), "tategu: "), "\n")
	info := detail{Type: "google.rpc.ErrorInfo", Metadata: map[string]string{}}
	if m := regexp.MustCompile(`\((?:.*, )?cause: ([a-z ]+)\)`).FindStringSubmatch(first); m != nil {
		info.Metadata["cause"] = m[1]
	}
	help := detail{Type: "google.rpc.Help"}
	if _, hint, ok := strings.Cut(first, "); "); ok {
		help.Links = append(help.Links, struct{ Description string }{hint})
	}
	return problem{Message: first, Details: []detail{info, help}}
}

// try injects a fault and judges what is shown of it.
func (w *world) try(ctx context.Context, f fault) (text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	places, err := f.inject(ctx, w)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range places {
		data, err := json.MarshalIndent(p.Details, "    ", "  ")
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  %s: %s\n    %s\n", p.where, strings.ReplaceAll(p.Message, "\n", "\n    | "), data)
	}
	for _, p := range places {
		if err := f.judge(p); err != nil {
			return b.String(), fmt.Errorf("%s: %w", p.where, err)
		}
		if err := w.follow(ctx, p.hint()); err != nil {
			return b.String(), fmt.Errorf("%s: the next step does not work: %w", p.where, err)
		}
	}
	return b.String(), nil
}

func (f fault) judge(p shown) error {
	if p.empty() {
		return errors.New("nothing is told")
	}
	info := p.info()
	if got := info.Metadata["cause"]; got != f.cause {
		return fmt.Errorf("cause %q, want %q", got, f.cause)
	}
	if f.reason != "" && info.Reason != "" && info.Reason != f.reason {
		return fmt.Errorf("reason %q, want %q", info.Reason, f.reason)
	}
	if p.hint() == "" {
		return errors.New("there is no next step")
	}
	for _, word := range f.say {
		if !strings.Contains(p.Message, word) {
			return fmt.Errorf("the message does not say %q", word)
		}
	}
	for _, word := range f.next {
		if !strings.Contains(p.hint(), word) {
			return fmt.Errorf("the next step does not say %q: %s", word, p.hint())
		}
	}
	return nil
}

// follow types the commands of a next step that only look, as a person would.
func (w *world) follow(ctx context.Context, hint string) error {
	for _, m := range regexp.MustCompile("`tategu ((?:logs|ls|status|image inspect)[^`]*)`").FindAllStringSubmatch(hint, -1) {
		out, err := w.server.command(ctx, strings.Fields(m[1])...)
		if err != nil {
			return fmt.Errorf("tategu %s: %w: %s", m[1], err, out)
		}
		if strings.TrimSpace(out) == "" {
			return fmt.Errorf("tategu %s prints nothing", m[1])
		}
	}
	return nil
}
