"""As much of a debugger as attaches to a program, and looks at it where it fails."""

import json
import socket
from typing import Self


class Debugger:
    """A client of the debug adapter protocol, which editors speak to debugpy."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=120)
        self.file = self.socket.makefile("rb")
        self.seq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, verb, **arguments):
        self.seq += 1
        message = {"seq": self.seq, "type": "request", "command": verb}
        text = json.dumps({**message, "arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n" % len(text) + text)

    def until(self, **want):
        """Read messages until one has the given fields; give it."""
        while True:
            length = 0
            while line := self.file.readline().strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if not length:
                raise EOFError(f"the program ended before {want}")
            message = json.loads(self.file.read(length))
            if want.items() <= message.items():
                return message

    def ask(self, verb, **arguments):
        self.send(verb, **arguments)
        answer = self.until(type="response", command=verb)
        if not answer["success"]:
            raise ValueError(f"{verb}: {answer.get('message')}")
        return answer.get("body", {})

    def start(self, *filters):
        """Attach, and let the program go on until an exception of a filter."""
        self.ask("initialize", adapterID="test")
        self.send("attach", justMyCode=False)  # empty arguments are lost
        self.until(type="event", event="initialized")
        self.ask("setExceptionBreakpoints", filters=list(filters))
        self.ask("configurationDone")

    def at_exception(self, function, expression):
        """Stop at the first exception in a function; give an expression's value there."""
        self.start("raised")
        while True:
            thread = self.until(type="event", event="stopped")["body"]["threadId"]
            frames = self.ask("stackTrace", threadId=thread)["stackFrames"]
            for frame in frames:
                if frame["name"] == function:
                    value = self.ask(
                        "evaluate", expression=expression, frameId=frame["id"]
                    )["result"]
                    self.ask("setExceptionBreakpoints", filters=[])
                    self.ask("continue", threadId=thread)
                    return value
            self.ask("continue", threadId=thread)
