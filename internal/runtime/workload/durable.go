package workload

import (
	"context"
	"fmt"
	"net"

	"tategu/internal/runtime/record"
)

// WriteJSON replaces a private file in one step that survives a power loss.
func WriteJSON(path string, v any) error { return record.WriteDurable(path, v) }

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(path string, v any) error { return record.ReadJSON(path, v) }

// Exists reports a file of any kind.
func Exists(path string) bool { return record.Exists(path) }

// RemoveAll also removes what a program left without write permission.
func RemoveAll(dir string) error { return record.RemoveAll(dir) }

// FreePort asks the kernel for a loopback port. Another program may take it
// before the workload does; the caller sees that as a failed start.
func FreePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }() // it carried nothing
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("find a free port: got %v", l.Addr())
	}
	return addr.Port, nil
}
