package main

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
)

// inEditor is the value of --edit without a file.
const inEditor = "$EDITOR"

// change is what --edit and --image make of a task's program.
type change struct {
	edit  string
	image string
}

func (ch *change) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&ch.edit, "edit", "", "change the task's source: to the content of FILE, or in $EDITOR without one")
	f.Lookup("edit").NoOptDefVal = inEditor
	f.StringVar(&ch.image, "image", "", "run the task in this image instead of its own")
	f.String("server", "", "HOST:PORT of a server that you logged in to")
}

func (ch *change) wanted() bool { return ch.edit != "" || ch.image != "" }

// file takes what stands behind --edit: a flag whose value may be left out leaves it
// among the arguments.
func (ch *change) file(rest []string) error {
	switch {
	case len(rest) == 0:
		return nil
	case ch.edit != inEditor:
		return resource.Invalid("edit", "%s is one argument too many", rest[0]).WithHint("a changed source comes with --edit %s", rest[0])
	}
	ch.edit = rest[0]
	return nil
}

// apply changes the spec.
func (ch *change) apply(cmd *cobra.Command, plan *pipeline.Plan, spec *structpb.Struct, at string) error {
	container, err := executorOf(plan, spec, at)
	if err != nil {
		return err
	}
	if ch.image != "" {
		container.Fields["image"] = structpb.NewStringValue(ch.image)
	}
	if ch.edit == "" {
		return nil
	}
	command := container.Fields["command"].GetListValue().GetValues()
	if i := sourceAt(command); i >= 0 {
		text, err := ch.edited(cmd, path.Base(at)+".py", command[i].GetStringValue())
		if err != nil {
			return err
		}
		command[i] = structpb.NewStringValue(text)
		return nil
	}
	return ch.applyToContainer(cmd, container, at)
}

// applyToContainer changes a program that is no Python function: how it is called.
func (ch *change) applyToContainer(cmd *cobra.Command, container *structpb.Struct, at string) error {
	var before bytes.Buffer
	enc := yaml.NewEncoder(&before)
	enc.SetIndent(2)
	if err := enc.Encode(container.AsMap()); err != nil {
		return err
	}
	text, err := ch.edited(cmd, path.Base(at)+".yaml", before.String())
	if err != nil {
		return err
	}
	var after map[string]any
	if err := yaml.Unmarshal([]byte(text), &after); err != nil {
		return resource.Invalid("edit", "the changed container is not YAML: %v", err).WithHint("it has the fields image, command, args, env and resources")
	}
	changed, err := structpb.NewStruct(after)
	if err != nil {
		return resource.Invalid("edit", "the changed container: %v", err)
	}
	container.Fields = changed.Fields
	return nil
}

// sourceAt finds the source of a kfp component in its command; -1 = it has none.
func sourceAt(command []*structpb.Value) int {
	last := len(command) - 1
	if last < 1 || !strings.Contains(command[last-1].GetStringValue(), "--component_module_path") {
		return -1
	}
	return last
}

// edited gives the new text: of the file, or as the editor leaves it.
func (ch *change) edited(cmd *cobra.Command, name, text string) (string, error) {
	if ch.edit != inEditor {
		data, err := os.ReadFile(ch.edit)
		if err != nil {
			return "", resource.Invalid("edit", "%v", err)
		}
		return string(data), nil
	}
	editor := or(os.Getenv("VISUAL"), os.Getenv("EDITOR"))
	if editor == "" {
		return "", resource.Invalid("edit", "neither EDITOR nor VISUAL names an editor").WithHint("set EDITOR, or name a file: --edit FILE")
	}
	dir, err := os.MkdirTemp("", "tategu-edit-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a copy
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", err
	}
	run := exec.CommandContext(cmd.Context(), "sh", "-c", editor+` "$1"`, "sh", file) //nolint:gosec // the user's own editor
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, cmd.ErrOrStderr(), cmd.ErrOrStderr()
	if err := run.Run(); err != nil {
		return "", resource.Invalid("edit", "the editor %s: %v", editor, err)
	}
	after, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if string(after) == text {
		return "", resource.Invalid("edit", "nothing was changed").WithHint("leave --edit out to run it as it was")
	}
	return string(after), nil
}
