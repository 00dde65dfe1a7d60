package main

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tategu/internal/component"
	"tategu/internal/imaging"
	"tategu/internal/resource"
)

func taskCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "task", Short: "Make pipeline steps of programs",
		Long: "task makes steps of pipelines of scripts and programs as they are.",
	}
	cmd.AddCommand(taskFromCommand())
	return cmd
}

// taskFlags are the flags of task from.
type taskFlags struct {
	runFlags
	args     []string
	words    []string
	tag, out string
	yaml     bool
}

func taskFromCommand() *cobra.Command {
	var f taskFlags
	cmd := &cobra.Command{
		Use: "from FILE", Short: "Print the kfp component that runs a script or a program", Args: cobra.ExactArgs(1),
		Long: `from puts the files of this folder (--folder) on the server, as an image with a name, and prints
the kfp component that runs FILE in it, unchanged. What it takes on its command line becomes the
parameters of the step: of a Python script they are read from its calls of argparse or click; for
others, and for scripts with subcommands, name them with --arg, or the step takes one text with all
arguments. Nothing of the script is run for this.

  --arg NAME[:TYPE][=DEFAULT]   is passed as --NAME VALUE; types are str, int, float, bool, words (several
                                in one text), in and out (artifacts: the program gets a path to read
                                or to write)
  --positional NAME[...]        likewise, passed as VALUE alone, behind the others

What runs FILE is chosen as for tategu run: a Python environment (--python, --with, --requirements),
an image (--image), or the server's machine.`,
		Example: `  tategu task from train.py --with numpy --out component.py
  tategu task from train.py --arg model-dir:out --yaml --out component.yaml
  tategu task from ./target/release/features --arg rows:int=1000 --positional table:out`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.from(cmd, args[0]) },
	}
	s := cmd.Flags()
	s.String("server", "", "HOST:PORT of a server that you logged in to")
	s.StringVar(&f.project, "project", "", "project of the image (default: the server's)")
	s.StringVar(&f.name, "name", "", "name of the component (default: the file's)")
	s.StringVarP(&f.tag, "tag", "t", "", "NAME[:TAG] of the image (default: PROJECT/NAME, with a tag of its content)")
	s.StringVar(&f.image, "image", "", "image to run the program in")
	s.StringVar(&f.python, "python", "", "version of Python, such as 3.12")
	s.StringArrayVar(&f.with, "with", nil, "pip requirement of the Python environment (repeatable)")
	s.StringArrayVarP(&f.requirement, "requirements", "r", nil, "requirements file of the Python environment (repeatable)")
	s.StringVar(&f.folder, "folder", ".", "folder whose files travel")
	s.StringVar(&f.folderLimit, "folder-limit", "256M", "most bytes that the folder may have")
	s.StringArrayVar(&f.args, "arg", nil, "argument NAME[:TYPE][=DEFAULT] of the program (repeatable)")
	s.StringArrayVar(&f.words, "positional", nil, "argument NAME[:TYPE][=DEFAULT] that is passed without a name (repeatable)")
	s.BoolVar(&f.yaml, "yaml", false, "print it compiled, as YAML, instead of Python")
	s.StringVarP(&f.out, "out", "o", "", "write to this file")
	_ = cmd.RegisterFlagCompletionFunc("image", completeImages) // fails only for an unknown flag
	return cmd
}

func (f *taskFlags) from(cmd *cobra.Command, file string) error {
	source, inside, err := f.read(file)
	if err != nil {
		return err
	}
	o, err := f.order([]string{inside}, true)
	if err != nil {
		return err
	}
	c := component.Component{Name: component.Identifier(or(f.name, path.Base(inside))), Source: inside, Command: o.command}
	if c.Name == "" {
		return resource.Invalid("name", "no name can be made of %q", or(f.name, inside)).WithHint("give one with --name")
	}
	if c.Arguments, err = f.arguments(inside, source); err != nil {
		return err
	}
	conn, err := connect(cmd)
	if err != nil {
		return err
	}
	r := &runner{cmd: cmd, c: conn}
	r.as = or(f.tag, or(f.project, conn.project)+"/"+strings.ReplaceAll(c.Name, "_", "-"))
	if c.Image, err = r.pack(o, or(f.project, conn.project)); err != nil {
		return err
	}
	return f.write(cmd, c)
}

// read finds the file in the folder.
func (f *taskFlags) read(file string) (source, inside string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", resource.Invalid("file", "%v", err).WithHint("name a script or a program: tategu task from train.py")
	}
	whole, err := filepath.Abs(file)
	folder, err2 := filepath.Abs(f.folder)
	if err := errors.Join(err, err2); err != nil {
		return "", "", err
	}
	rel, err := filepath.Rel(folder, whole)
	if err != nil || !filepath.IsLocal(rel) {
		return "", "", resource.Invalid("file", "%s is not in the folder %s", file, f.folder).WithHint("name the folder that travels with --folder %s", filepath.Dir(file))
	}
	return string(text), filepath.ToSlash(rel), nil
}

// arguments are those of the script, or given ones, or all in one text.
func (f *taskFlags) arguments(file, source string) ([]component.Argument, error) {
	var given []component.Argument
	for _, text := range f.args {
		a, err := component.ParseArgument(text)
		if err != nil {
			return nil, err
		}
		given = append(given, a)
	}
	for _, text := range f.words {
		a, err := component.ParseArgument(text)
		if err != nil {
			return nil, err
		}
		if a.Type == component.Bool {
			return nil, resource.Invalid("positional", "%s is a bool, which is a flag: name it with --arg", text)
		}
		a.Flag = ""
		given = append(given, a)
	}
	var found []component.Argument
	known := false
	if strings.HasSuffix(file, ".py") {
		found, known = component.Arguments(source)
	}
	if !known && len(given) == 0 {
		return []component.Argument{{Name: "args", Type: component.Words, Default: `""`, Help: "all arguments"}}, nil
	}
	return component.Override(found, given), nil
}

func (f *taskFlags) write(cmd *cobra.Command, c component.Component) error {
	text := []byte(c.Python())
	if f.yaml {
		var err error
		if text, err = c.YAML(); err != nil {
			return err
		}
	}
	if f.out == "" {
		_, err := cmd.OutOrStdout().Write(text)
		return err
	}
	return os.WriteFile(f.out, text, fs.FileMode(0o666))
}

// named sends a picture under a name, with a tag of its content unless one is given.
func (r *runner) named(c *imaging.Client, p imaging.Picture) (string, error) {
	digest, err := p.Digest()
	if err != nil {
		return "", err
	}
	as := r.as
	if !strings.Contains(path.Base(as), ":") {
		as += ":" + digest.Hex[:12]
	}
	to, err := c.Target(as)
	if err != nil {
		return "", err
	}
	if err := c.Put(r.cmd.Context(), to, p); err != nil {
		return "", err
	}
	r.say("image %s", as)
	return to.Context().RepositoryStr() + "@" + digest.String(), nil
}
