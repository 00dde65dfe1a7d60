package main

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
)

// holdVariable names the program that waits in the place of a task for a shell.
const holdVariable = "TATEGU_HOLD"

// taskScript is the file in the working directory that starts the task from a shell.
const taskScript = "tategu-task"

// holdPython keeps a Python component from its work and notes how it was called.
const holdPython = `import os, shlex, sys
if os.environ.get("TATEGU_HOLD"):
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    words = [sys.executable] + (["-m", spec.name] if spec else [main.__file__]) + sys.argv[1:]
    with open("tategu-task", "w") as file:
        file.write("#!/bin/sh\nunset TATEGU_HOLD\nexec " + shlex.join(words) + "\n")
    os.chmod("tategu-task", 0o755)
    os.execvp("sleep", ["sleep", "2147483647"])
`

// holdShell is the same for any other command, which are its arguments.
const holdShell = `{ echo '#!/bin/sh'; echo 'unset TATEGU_HOLD'; printf exec
for word; do printf " '%s'" "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"; done; echo; } > tategu-task
chmod +x tategu-task; exec sleep 2147483647`

// awaitPython lets a Python component wait for a debugger.
const awaitPython = `import os, sys
try:
    import debugpy
except ImportError:
    sys.exit("tategu: debugpy is not in the environment of this component; add it, packages_to_install=['debugpy'], compile, and run the pipeline again")
debugpy.listen(("127.0.0.1", int(os.environ["PORT"])))
print("tategu: waiting for a debugger on 127.0.0.1:" + os.environ["PORT"], flush=True)
debugpy.wait_for_client()
`

// before puts Python code before a source, on a line that keeps the numbers of the
// others: sources of kfp start with an empty one.
func before(code, source string) string {
	line := "exec(" + strconv.QuoteToASCII(code) + ", {})"
	if strings.HasPrefix(source, "\n") {
		return line + source
	}
	return line + "\n" + source
}

// holdBack lets a program wait where it would have started.
func holdBack(container *structpb.Struct, token string) error {
	addVariable(container, holdVariable, token)
	command := container.GetFields()["command"].GetListValue().GetValues()
	if i := sourceAt(command); i >= 0 {
		command[i] = structpb.NewStringValue(before(holdPython, command[i].GetStringValue()))
		return nil
	}
	if len(command) == 0 {
		return resource.Invalid("shell", "the task runs the program that its image names, and a shell cannot stand in for it").
			WithHint("name the program as the command of the component, or with --edit")
	}
	words := []any{"sh", "-c", holdShell, "sh"}
	for _, c := range command {
		words = append(words, c.GetStringValue())
	}
	list, err := structpb.NewList(words)
	if err != nil {
		return err
	}
	container.Fields["command"] = structpb.NewListValue(list)
	return nil
}

// awaitDebugger lets a Python component wait for a debugger, on a port of its own.
func awaitDebugger(container *structpb.Struct) error {
	command := container.GetFields()["command"].GetListValue().GetValues()
	i := sourceAt(command)
	if i < 0 {
		return resource.Invalid("port", "the task is no Python component, and debugpy debugs Python").
			WithHint("start a debugger of its own in --shell")
	}
	command[i] = structpb.NewStringValue(before(awaitPython, command[i].GetStringValue()))
	addVariable(container, "PORT", "$(PORT)")
	return nil
}

func addVariable(container *structpb.Struct, name, value string) {
	list := container.GetFields()["env"].GetListValue()
	if list == nil {
		list = &structpb.ListValue{}
	}
	list.Values = append(list.Values, structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
		"name": structpb.NewStringValue(name), "value": structpb.NewStringValue(value),
	}}))
	container.Fields["env"] = structpb.NewListValue(list)
}
