package main

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"tategu/internal/imaging"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// order is what is to be run, before anything was sent.
type order struct {
	runFlags
	image   string // "" = the machine's own programs
	command []string
	args    []string
	folder  string // "" = none travels
	files   bool   // the image stands for what runs files (a Python version, or nothing)
}

// order reads the words after the flags.
func (f *runFlags) order(words []string, isCommand bool) (order, error) {
	o := order{runFlags: *f, folder: f.folder, image: f.image}
	if len(words) == 0 {
		return o, resource.Invalid("command", "there is nothing to run").
			WithHint("name an image, or a command after --: tategu run -- python train.py")
	}
	if !isCommand {
		if err := f.checkImage(words); err != nil {
			return o, err
		}
		o.image, o.args = words[0], words[1:]
	} else {
		o.command = words
		if o.folder == "" {
			o.folder = "."
		}
	}
	if o.folder == "none" {
		o.folder = ""
	}
	return o, o.settle()
}

// checkImage finds the dash that was forgotten, and flags that are of commands.
func (f *runFlags) checkImage(words []string) error {
	if f.image != "" {
		return resource.Invalid("image", "--image is for a command after --").WithHint("write: tategu run --image %s -- %s", f.image, strings.Join(words, " "))
	}
	file := words[0]
	if _, err := exec.LookPath(file); err == nil && !strings.ContainsAny(file, "/:") && len(words) > 1 && f.folder == "" {
		file = words[1] // python train.py
	}
	if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() {
		return resource.Invalid("image", "%s is a file here, and an image was expected", file).
			WithHint("a command comes after a dash: tategu run -- %s", strings.Join(words, " "))
	}
	return nil
}

// settle finds out what runs the command: an image, a Python environment, or the
// machine.
func (o *order) settle() error {
	packages := len(o.with)+len(o.requirement) > 0
	version, isPython := "", false
	if len(o.command) > 0 {
		var err error
		if version, isPython, err = o.interpreter(); err != nil {
			return err
		}
	}
	switch {
	case o.image != "":
		plan, err := runtime.Resolve(nil, o.image)
		o.files = err == nil && plan.Python
		if o.python != "" {
			return resource.Invalid("python", "--python is for a command without an image, and %s is one", o.image)
		}
	case isPython || packages || o.python != "":
		o.files, o.image = true, "python"
		if v := or(o.python, version); v != "" {
			o.image += ":" + v
		}
		if o.python != "" && !regexp.MustCompile(`^3(\.\d{1,3}){0,2}$`).MatchString(o.python) {
			return resource.Invalid("python", "%.40q is not a version of Python", o.python).WithHint("write it as 3.12")
		}
	default:
		o.files = true
	}
	if packages && !o.files {
		return resource.Invalid("with", "packages are installed into a Python environment, and %s is an image of its own", o.image).
			WithHint("install them in the image, or leave out --image and name the version with --python")
	}
	return nil
}

// interpreter makes a command of the folder's file, if it is one, and tells whether
// it runs in a Python environment.
func (o *order) interpreter() (version string, isPython bool, err error) {
	first := o.command[0]
	if m := regexp.MustCompile(`^python(3(?:\.\d+)?)?$`).FindStringSubmatch(first); m != nil {
		if strings.Contains(m[1], ".") {
			version = m[1]
		}
		return version, o.image == "", nil
	}
	if !filepath.IsAbs(first) && o.folder != "" {
		if st, err := os.Stat(filepath.Join(o.folder, first)); err == nil && st.Mode().IsRegular() {
			if strings.HasSuffix(first, ".py") {
				o.command = append([]string{"python3"}, o.command...)
				return "", o.image == "", nil
			}
			if st.Mode()&0o111 == 0 {
				return "", false, resource.Invalid("command", "%s is not executable", first).
					WithHint("make it so (chmod +x %s), or name what runs it: tategu run -- sh %s", first, strings.Join(o.command, " "))
			}
			if !strings.Contains(first, "/") {
				o.command = append([]string{"./" + first}, o.command[1:]...)
			}
		}
	}
	return "", false, nil
}

// title is the display name of a job that was given none.
func (o *order) title() string {
	words := append(append([]string{}, o.command...), o.args...)
	if len(o.command) == 0 {
		name, _, _ := strings.Cut(o.image, "@")
		return path.Base(name)
	}
	for _, w := range words { // python train.py is about train.py
		if base := path.Base(w); !strings.HasPrefix(w, "-") && !regexp.MustCompile(`^(python[\d.]*|sh|bash|env)$`).MatchString(base) {
			return base[:min(len(base), 100)]
		}
	}
	return path.Base(words[0])
}

// packages lists what the Python environment must have.
func (o *order) packages() ([]string, error) {
	var out []string
	for _, file := range o.requirement {
		list, err := imaging.ReadRequirements(file)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return append(out, o.with...), nil
}
