package runtime

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"tategu/internal/resource"

	"google.golang.org/grpc/codes"
)

// ImageRule says what to run where a caller names a container image. The first
// rule whose Match fits wins; the built-in rules for Python base images follow.
type ImageRule struct {
	Match string `yaml:"match"` // glob over the whole image name: * is any text (slashes too), ? one character
	// Python runs the program in an environment of this version, "3.11".
	Python string `yaml:"python"`
	// PythonMatch "any" accepts another version than Python; a status says so.
	PythonMatch string `yaml:"python.match"`
	// Rootfs runs the program in a directory that holds an unpacked image.
	Rootfs string `yaml:"rootfs"`
	// Image runs the program in the image itself, which must be kept on this
	// machine; it is how an image that is a Python one by its name is unpacked.
	Image bool `yaml:"image"`
	// Mounts shows files and directories of this machine in the container, each as
	// FROM:TO or FROM:TO:ro.
	Mounts []string `yaml:"mounts"`
	// Network of the container: "host" (also "") is the machine's, "none" is one of its
	// own in which there is nothing but itself.
	Network string `yaml:"network"`
	// Command is a host program that stands in for the image; the workload's
	// command and arguments become its arguments.
	Command []string `yaml:"command"`
}

// What ImageRule.Network may be.
const (
	networkHost = "host"
	networkNone = "none"
)

// Plan is what the rules make of an image. The zero Plan is a plain host program.
type Plan struct {
	Command   []string // stands in front of the workload's command
	Python    bool     // runs in a Python environment ...
	Version   string   // ... of this version; "" = the server's default
	AnyPython bool     // another version will do
	Rootfs    string   // runs in a container, in this directory ...
	Kept      bool     // ... or in the kept image of the name that was asked for
	Mounts    []string // FROM:TO[:ro], of the rule
	NoNetwork bool     // the container reaches nothing but itself
	// Files says that the kept image is files (ImageConfig.Base): they are copied
	// into the working directory of a program that runs in no container.
	Files    bool
	Packages []string // of the Python environment, as the image asks for
}

// Container reports that the program runs in a container.
func (p Plan) Container() bool { return p.Rootfs != "" || p.Kept }

// Resolve finds the plan for an image; an image that no rule fits is an error.
// No image is a plain host program.
func Resolve(rules []ImageRule, image string) (Plan, error) {
	if image == "" {
		return Plan{}, nil
	}
	for _, rule := range rules {
		if !glob(rule.Match, image) {
			continue
		}
		if rule.Rootfs != "" || rule.Image {
			if rule.Python != "" || len(rule.Command) > 0 || rule.Rootfs != "" && rule.Image {
				return Plan{}, resource.Invalid("images", "the images rule %q says more than one of image, rootfs, python and command", rule.Match).
					WithHint("leave one of them in tategu.yaml")
			}
			if rule.Network != "" && rule.Network != networkHost && rule.Network != networkNone {
				return Plan{}, resource.Invalid("images", "the images rule %q has the network %.40q", rule.Match, rule.Network).
					WithHint("say network: host or network: none in tategu.yaml")
			}
			return Plan{Rootfs: rule.Rootfs, Kept: rule.Image, Mounts: rule.Mounts, NoNetwork: rule.Network == networkNone}, nil
		}
		if rule.Network != "" {
			return Plan{}, resource.Invalid("images", "the images rule %q has a network, which only containers have", rule.Match).
				WithHint("add image: true or rootfs: DIR in tategu.yaml, or leave network out")
		}
		if rule.Python == "" && len(rule.Command) == 0 {
			return Plan{}, resource.Invalid("images", "the images rule %q says neither image, rootfs, python nor command", rule.Match).
				WithHint("add one of them in tategu.yaml")
		}
		return Plan{Command: rule.Command, Python: rule.Python != "", Version: rule.Python, AnyPython: rule.PythonMatch == "any"}, nil
	}
	if version, ok := pythonImage(image); ok {
		return Plan{Python: true, Version: version}, nil
	}
	return Plan{}, resource.Invalid("image", "nothing is known about the image %q", image).WithResource(image).WithHint(
		`add a rule to images: in tategu.yaml, such as {match: %q, python: "3.11"} or {match: %q, command: [PROGRAM]}`, image, image)
}

// Choose finds the plan for an image as Resolve does; an image that no rule fits
// runs in a container if kept, which may be nil, has it.
func Choose(ctx context.Context, rules []ImageRule, kept Images, image string) (Plan, error) {
	plan, err := Resolve(rules, image)
	unknown := err != nil && resource.CodeOf(err) == codes.InvalidArgument && !ruled(rules, image)
	if err != nil && !unknown || err == nil && !plan.Kept {
		return plan, err
	}
	if kept == nil {
		if unknown {
			return Plan{}, err
		}
		return Plan{}, resource.Errorf(codes.FailedPrecondition, "image %s is to run as a container, and this server keeps no images", image).WithResource(image).
			WithCause(resource.CauseInput).WithHint("name an unpacked image instead, with rootfs: in images: of tategu.yaml")
	}
	switch img, missing := kept.Image(ctx, image); {
	case missing == nil && img.Config.Base != "" && plan.NoNetwork:
		return Plan{}, resource.Invalid("images", "image %s is to have no network, and runs in no container: it has files for the base %s", image, img.Config.Base).
			WithResource(image).WithHint("build it on an image: `tategu image build --base IMAGE`")
	case missing == nil && img.Config.Base != "":
		return filesPlan(rules, img)
	case missing == nil:
		return Plan{Kept: true, Mounts: plan.Mounts, NoNetwork: plan.NoNetwork}, nil
	case unknown && resource.IsNotFound(missing):
		return Plan{}, keptHint(err, missing)
	default:
		return Plan{}, missing
	}
}

// filesPlan is for an image of files: what its base is, with the files.
func filesPlan(rules []ImageRule, img Image) (Plan, error) {
	plan := Plan{}
	if img.Config.Base != BaseMachine {
		var err error
		if plan, err = Resolve(rules, img.Config.Base); err != nil {
			return plan, err
		}
	}
	switch {
	case plan.Container():
		return Plan{}, resource.Invalid("image", "image %s has files for the base %s, which runs in a container here", img.Reference, img.Config.Base).
			WithResource(img.Reference).WithHint("build it on that image: `tategu image build --base %s`", img.Config.Base)
	case !plan.Python && len(img.Config.Packages) > 0:
		return Plan{}, resource.Invalid("image", "image %s asks for Python packages on the base %s, which is no Python environment", img.Reference, img.Config.Base).
			WithResource(img.Reference).WithHint("name a Python version with the packages")
	}
	plan.Files, plan.Packages = true, img.Config.Packages
	return plan, nil
}

func ruled(rules []ImageRule, image string) bool {
	return slices.ContainsFunc(rules, func(r ImageRule) bool { return glob(r.Match, image) })
}

// keptHint adds how to bring an image to how to write a rule for it.
func keptHint(err, missing error) error {
	e, ok := errors.AsType[*resource.Error](err)
	m, ok2 := errors.AsType[*resource.Error](missing)
	if !ok || !ok2 || m.Hint == "" {
		return err
	}
	return e.WithHint("%s; or %s", m.Hint, e.Hint)
}

// pythonImage recognises the official Python images, which are also what kfp
// names as the base image of its components, with any registry in front.
func pythonImage(image string) (version string, ok bool) {
	name, _, _ := strings.Cut(image, "@")
	m := regexp.MustCompile(`(?:^|/)python(?::(\d+)(\.\d+)?[^/]*|:[a-z][^/]*)?$`).FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	if m[2] == "" {
		return "", true // python, python:3, python:slim: the newest one, our default
	}
	return m[1] + m[2], true
}

// glob matches with * for any text and ? for one byte.
func glob(pattern, s string) bool {
	// Classic two-pointer match: on a mismatch the last star takes one byte more.
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
