// Command program says when it began, in nanoseconds since 1970.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() { _, _ = fmt.Fprintln(os.Stdout, time.Now().UnixNano()) }
