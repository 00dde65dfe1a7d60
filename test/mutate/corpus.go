package main

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

// The corpus: valid requests, one file an API. Every file but setup.http is
// mutated; setup.http makes what the others name, and its answers must be 2xx.
//
//	### title
//	> job = name            the field "name" of the answer becomes ${job}
//	POST /v1/projects/...   or GRPC package.Service/Method with a JSON body
//	Content-Type: application/json
//
//	body up to the next ###
//
//go:embed corpus/*.http
var corpusFiles embed.FS

// seedRequest is a request of the corpus before it is mutated.
type seedRequest struct {
	title    string
	method   string // an HTTP verb, or GRPC
	target   string
	header   [][2]string
	body     []byte
	captures [][2]string // variable, field
	auto     *boundMethod
}

// variables are what setup learned.
type variables map[string]string

func (v variables) expand(s string) string {
	for name, value := range v {
		s = strings.ReplaceAll(s, "${"+name+"}", value)
	}
	return s
}

func (v variables) apply(s seedRequest) seedRequest {
	s.target = v.expand(s.target)
	header := make([][2]string, len(s.header))
	for i, h := range s.header {
		header[i] = [2]string{h[0], v.expand(h[1])}
	}
	s.header = header
	s.body = []byte(v.expand(string(s.body)))
	return s
}

// loadCorpus gives the setup and the requests to mutate.
func loadCorpus() (setup, seeds []seedRequest, err error) {
	files, err := fs.Glob(corpusFiles, "corpus/*.http")
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		text, err := corpusFiles.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		requests, err := parseCorpus(text)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		if file == "corpus/setup.http" {
			setup = requests
		} else {
			seeds = append(seeds, requests...)
		}
	}
	return setup, seeds, nil
}

func parseCorpus(text []byte) ([]seedRequest, error) {
	var out []seedRequest
	for i, section := range bytes.Split(append([]byte("\n"), text...), []byte("\n### ")) {
		if i == 0 {
			continue // a comment ahead of the first request
		}
		s, err := parseSeed(section)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", i, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func parseSeed(section []byte) (seedRequest, error) {
	r := bufio.NewReader(bytes.NewReader(section))
	line := func() string {
		text, _ := r.ReadString('\n') // the end of the section is an empty line
		return strings.TrimRight(text, "\n")
	}
	s := seedRequest{title: line()}
	for {
		text := line()
		if directive, ok := strings.CutPrefix(text, "> "); ok {
			name, field, _ := strings.Cut(directive, " = ")
			s.captures = append(s.captures, [2]string{name, field})
			continue
		}
		var ok bool
		if s.method, s.target, ok = strings.Cut(text, " "); !ok {
			return s, fmt.Errorf("%s: %q is no request line", s.title, text)
		}
		break
	}
	for text := line(); text != ""; text = line() {
		name, value, ok := strings.Cut(text, ": ")
		if !ok {
			return s, fmt.Errorf("%s: %q is no header", s.title, text)
		}
		s.header = append(s.header, [2]string{name, value})
	}
	body := bytes.TrimRight(section[len(section)-r.Buffered():], "\n")
	if strings.HasPrefix(s.get("Content-Type"), "multipart/") {
		body = append(bytes.ReplaceAll(body, []byte("\n"), []byte("\r\n")), "\r\n"...)
	}
	s.body = body
	return s, nil
}

func (s *seedRequest) get(name string) string {
	for _, h := range s.header {
		if strings.EqualFold(h[0], name) {
			return h[1]
		}
	}
	return ""
}

// capture takes the asked fields of an answer; "header:Location" is a
// header and "xml:Name" an element.
func (s *seedRequest) capture(vars variables, header http.Header, body []byte) error {
	for _, c := range s.captures {
		if name, ok := strings.CutPrefix(c[1], "header:"); ok {
			vars[c[0]] = header.Get(name)
			continue
		}
		if name, ok := strings.CutPrefix(c[1], "xml:"); ok {
			_, rest, _ := strings.Cut(string(body), "<"+name+">")
			vars[c[0]], _, _ = strings.Cut(rest, "<")
			continue
		}
		var at any
		if err := json.Unmarshal(body, &at); err != nil {
			return err
		}
		for part := range strings.SplitSeq(c[1], ".") {
			m, _ := at.(map[string]any)
			at = m[part]
		}
		text, ok := at.(string)
		if !ok {
			return fmt.Errorf("%s: the answer has no text %q: %s", s.title, c[1], body)
		}
		vars[c[0]] = text
	}
	return nil
}
